"""Running programs: each has a deadline, and none outlives the bench."""
import contextlib
import os
import subprocess
import time

TERM_SECONDS = 30


class Broken(Exception):
    """A measurement that cannot be made, or whose result means nothing."""


def run(*command, timeout=60, cwd=None, env=None):
    """Runs a program to its end and returns its standard output.

    One that misses its deadline is killed and not waited for: on a mount
    that does not answer it cannot end before the daemon does."""
    command = [str(word) for word in command]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, errors="replace", cwd=cwd, env={**os.environ, **(env or {})})
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise Broken(f"{command[0]} did not end within {timeout} s: {' '.join(command)}") from None
    except BaseException:
        process.kill()
        raise
    if process.returncode != 0:
        raise Broken(f"{' '.join(command)}: exit status {process.returncode}: {(errors or output).strip()[-500:]}")
    return output


def wait_until(condition, what, timeout=30, interval=0.005):
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise Broken(f"waited {timeout} s for {what}")
        time.sleep(interval)


class Daemon:
    """A program in the background, in a session of its own: a Ctrl-C at the
    terminal reaches the bench, which then ends its daemons in order."""

    def __init__(self, command, log_path, cwd=None, env=None):
        self.name = os.path.basename(command[0])
        self.log_path = log_path
        with open(log_path, "ab") as log:
            self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, cwd=cwd, env={**os.environ, **(env or {})},
                                            start_new_session=True)
        self.pid = self.process.pid

    def is_running(self):
        return self.process.poll() is None

    def check_running(self):
        if not self.is_running():
            raise Broken(f"{self.name} ended with {self.process.returncode}: {self.messages()}")

    def messages(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read().strip()[-500:]

    def end(self):
        """In order when it can, by force when it does not."""
        for end in (self.process.terminate, self.process.kill):
            end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(TERM_SECONDS)
                return
