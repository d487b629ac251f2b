"""Published weights: found in the cache of a library, or downloaded, and what to do if neither works."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

from shards.errors import InputError

NOT_STATED = "not stated"
# The first that a repository of weights has; safetensors before pickles.
_FILES = ("model.safetensors", "pytorch_model.bin")


def from_hub(repository: str, file: str | None) -> Path:
    """Return a file of a repository on Hugging Face's hub.

    Args:
        repository: `OWNER/NAME`, optionally `@REVISION`.
        file: Its name; None for that of a model's weights.

    Raises:
        OSError: It cannot be downloaded; as `RepositoryNotFoundError`, it needs a licence or a login.
        EntryNotFoundError: The repository has no such file.
    """
    name, _, revision = repository.partition("@")
    *first, last = (file,) if file else _FILES
    for candidate in first:
        try:
            return Path(hf_hub_download(name, candidate, revision=revision or None))
        except LocalEntryNotFoundError:  # no network, which says nothing of the repository
            raise
        except EntryNotFoundError:
            continue
    return Path(hf_hub_download(name, last, revision=revision or None))


def not_downloaded(model: str, licence: str, repository: str, error: BaseException) -> InputError:
    """Return the error for weights that could not be downloaded: why, and what to do.

    Args:
        model: Its name in a configuration.
        licence: Of its weights.
        repository: On Hugging Face's hub; empty for weights from elsewhere.
        error: From the library.
    """
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    otherwise = (
        "give the path of the weights (--semantics.weights PATH; of jobs/cache_features.py: --weights PATH), or use "
        "random weights"
    )
    if repository and _is_withheld(error):
        page = f"https://huggingface.co/{repository.partition('@')[0].rstrip('/')}"
        return InputError(
            f"the weights of {model} are withheld until you accept their licence ({licence}): accept it on {page}, and "
            f"log in on this machine (`hf auth login`, or HF_TOKEN); or {otherwise} ({reason})"
        )
    return InputError(f"the weights of {model} could not be downloaded ({reason}); check the network, {otherwise}")


def _is_withheld(error: BaseException | None) -> bool:
    """Return whether the hub refused a repository to this user, which a library may have wrapped."""
    while error is not None:
        if isinstance(error, RepositoryNotFoundError):  # a `GatedRepoError` is one, too
            return True
        error = error.__cause__ or error.__context__
    return False
