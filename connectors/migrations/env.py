"""What alembic executes: the migrations, on the caller's connection and in its transaction."""

from alembic import context

from connectors.ledger_schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter a column in place
)
with context.begin_transaction():
    context.run_migrations()
