#!/usr/bin/env bash
# Serves MLflow with users and passwords, which live in the same database as its numbers. Variables, all secrets among
# them, since every user of a machine sees the arguments of its programs:
#
#   POSTGRES_HOST, POSTGRES_PASSWORD     and, where they differ, POSTGRES_PORT (5432), POSTGRES_USER and POSTGRES_DB (mlflow)
#   MLFLOW_ARTIFACTS_DESTINATION         s3://BUCKET/PREFIX, with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL
#   MLFLOW_FLASK_SERVER_SECRET_KEY       any long random text, the same at every start
#   MLFLOW_AUTH_ADMIN_PASSWORD           of the user admin, at the first start
#   MLFLOW_SERVER_ALLOWED_HOSTS          HOST:PORT under which people reach it, separated by commas
#   MLFLOW_SERVER_HOST, MLFLOW_SERVER_PORT  where it listens (0.0.0.0, 5000)
set -euo pipefail

for name in POSTGRES_HOST POSTGRES_PASSWORD MLFLOW_ARTIFACTS_DESTINATION MLFLOW_FLASK_SERVER_SECRET_KEY \
  MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_SERVER_ALLOWED_HOSTS; do
  [[ -n "${!name:-}" ]] || { echo "error: $name is not set; infra/mlflow/serve.sh begins with what each variable is" >&2; exit 2; }
done
if [[ "$POSTGRES_PASSWORD" =~ [^A-Za-z0-9_-] ]]; then
  echo "error: POSTGRES_PASSWORD has characters that a URL cannot hold; use letters, digits, - and _ (openssl rand -hex 24)" >&2
  exit 2
fi

user="${POSTGRES_USER:-mlflow}"
export MLFLOW_BACKEND_STORE_URI="postgresql+psycopg://$user:$POSTGRES_PASSWORD@$POSTGRES_HOST:${POSTGRES_PORT:-5432}/${POSTGRES_DB:-mlflow}"

MLFLOW_AUTH_CONFIG_PATH="$(mktemp)" # which this user alone can read
export MLFLOW_AUTH_CONFIG_PATH
# EDIT: everybody of the team may send runs to every experiment; deleting and permissions stay with owners and admin.
cat > "$MLFLOW_AUTH_CONFIG_PATH" << END
[mlflow]
default_permission = EDIT
database_uri = $MLFLOW_BACKEND_STORE_URI
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
END

exec mlflow server --app-name basic-auth --host "${MLFLOW_SERVER_HOST:-0.0.0.0}" --port "${MLFLOW_SERVER_PORT:-5000}" \
  --allowed-hosts "$MLFLOW_SERVER_ALLOWED_HOSTS"
