import typer

from lab.fake_azure.command import fake_azure

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command()(fake_azure)
app(prog_name="plimsoll lab fake-azure")
