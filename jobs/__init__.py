"""Jobs: one verb per file, which parses arguments, calls the library and returns an exit code. Only jobs use Ray."""
