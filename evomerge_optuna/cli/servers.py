"""Commands about the storage: `storage serve`, `storage upgrade`, `dashboard`."""

import click

from evomerge_optuna.cli.options import open_storage, open_to_read, storage_option


@click.command("upgrade")
@storage_option
def storage_upgrade(storage: str | None) -> None:
    """Update the tables that an older Optuna made."""
    from evomerge_optuna.store.open import upgrade

    click.echo(f"The tables now have version {upgrade(storage)}")


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=13000, show_default=True, type=click.IntRange(0, 65535))
@storage_option
def storage_serve(host: str, port: int, storage: str | None) -> None:
    """Serve the storage to workers by gRPC."""
    from evomerge_optuna.store.proxy import serve

    try:
        serve(
            open_storage(storage),
            host,
            port,
            on_ready=lambda url: click.echo(
                f"Workers can use it with EVOMERGE_STORAGE={url} (Ctrl-C stops it)"
            ),
        )
    except KeyboardInterrupt:
        click.echo("Stopped.")


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535))
@storage_option
def dashboard(host: str, port: int, storage: str | None) -> None:
    """Serve optuna-dashboard for the studies."""
    from evomerge_optuna.report.dashboard import serve

    try:
        serve(
            open_to_read(storage),
            host,
            port,
            on_ready=lambda url: click.echo(f"The dashboard runs at {url} (Ctrl-C stops it)"),
        )
    except KeyboardInterrupt:
        click.echo("Stopped.")
