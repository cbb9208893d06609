"""The application: the only place where the parts are put together."""
