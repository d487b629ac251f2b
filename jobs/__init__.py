"""Jobs: one verb a file; parse, call, exit code. Ray lives here."""
