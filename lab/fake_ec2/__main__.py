import typer

from lab.fake_ec2.command import fake_ec2

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command()(fake_ec2)
app(prog_name="plimsoll lab fake-ec2")
