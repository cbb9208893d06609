"""Answers over HTTP: who is champion, one line to the model, and the service around it."""
