import typer

from lab.fake_ec2.command import fake_ec2

typer.run(fake_ec2)
