"""Commands and their groups: where a command runs, and how errors and signals end it."""

from __future__ import annotations

import errno
import signal
import sys
from typing import Any

import click

from tunekit.cli.addresses import is_job_server
from tunekit.cli.as_job import as_job
from tunekit.cli.printing import echo_line, note, one_line
from tunekit.errors import TunekitError, nearest

# Of files and folders that a person named: not there, not allowed, read-only, full, too long a name ...
_FILE_ERRORS = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO),
}


class Command(click.Command):
    """A command whose `--address` may be that of a job server: then it runs on that cluster, as a job."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["tunekit.typed"] = self.make_parser(ctx).parse_args(list(args))[0]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        address = ctx.params.get("address") or ctx.meta.get("tunekit.address")
        if not is_job_server(address):
            return super().invoke(ctx)
        from tunekit.tuning.remote_job import run_remotely

        return sys.exit(run_remotely(str(address), as_job(ctx), echo_line, note))


class Group(click.Group):
    """Says the nearest command on a typing error; turns our errors into one line and exit code 1, and signals
    to end into exit code 130.
    """

    command_class = Command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            ctx.fail(f"no command {args[0]!r}{nearest(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        for number in (signal.SIGTERM, signal.SIGUSR1):  # as Ctrl-C: what was begun is left in order
            signal.signal(number, signal.default_int_handler)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(130)
        except TunekitError as error:
            raise click.ClickException(one_line(str(error))) from None
        except click.UsageError as error:
            raise click.UsageError(one_line(error.format_message()), error.ctx) from None
        except OSError as error:
            if error.errno not in _FILE_ERRORS:
                raise
            raise click.ClickException(one_line(f"{error.filename or 'a file'}: {error.strerror}")) from None
