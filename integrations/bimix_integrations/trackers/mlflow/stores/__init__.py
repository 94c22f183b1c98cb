"""Where MLflow keeps runs, read and written apart: databases, a server, folders of files, each behind `Store`."""
