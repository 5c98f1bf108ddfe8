import typer

from lab.fake_alibaba.command import fake_alibaba

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command()(fake_alibaba)
app(prog_name="plimsoll lab fake-alibaba")
