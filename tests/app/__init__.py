"""The application: configuration, command line, console."""
