"""What the command line does on a terminal: questions, editors, colours, widths, Ctrl-C, and pipes that close."""

import fcntl
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress

import numpy as np
import pytest

from fusefs.cli.message import message_in
from fusefs.cli.output import cells
from storage import Repository
from storage.engine import Engine
from storage.model.samples import BytesSource
from tests.command_line import stage
from tests.conftest import PATIENCE, arborfs

PLAIN = {key: value for key, value in os.environ.items() if key not in ("EDITOR", "VISUAL", "NO_COLOR", "COLUMNS")}


class Terminal:
    """A process with a terminal of its own: what it wrote there, and a keyboard."""

    def __init__(self, *words, columns=80, program=(sys.executable, "-m", "fusefs.cli"), **environment):
        self._fd, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = subprocess.Popen(
            [*program, *map(str, words)],
            stdin=its,
            stdout=its,
            stderr=its,
            start_new_session=True,
            # The terminal is that of its session, so that Ctrl-C reaches it as a signal.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env=PLAIN | {"TERM": "xterm-256color"} | environment,
        )
        os.close(its)
        self.written = ""

    def type(self, text):
        os.write(self._fd, text.encode())

    def expect(self, text):
        """Wait until it has written `text`."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.written:
            assert time.monotonic() < deadline and self._read(), f"no {text!r} in {self.written!r}"

    def interrupt(self):
        """Press Ctrl-C until it has ended: one that comes just before the question waits for its answer is lost to Python."""
        for _ in range(int(PATIENCE)):
            self.type("\x03")
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(1)
                return

    def end(self):
        """Its exit code, once it has ended; all it wrote is in `written` then."""
        while self._read():
            pass
        return self.process.wait(PATIENCE)

    def _read(self):
        ready, _, _ = select.select([self._fd], [], [], PATIENCE)
        try:
            data = os.read(self._fd, 65536) if ready else b""
        except OSError:  # EIO: nobody has the other side any more
            return False
        self.written += data.decode().replace("\r\n", "\n")
        return bool(data)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._fd)


@pytest.fixture
def terminal():
    """A function that starts a command on a terminal; it is ended after the test."""
    made = []

    def start(*words, **settings):
        made.append(Terminal(*words, **settings))
        return made[-1]

    yield start
    for each in made:
        each.close()


def editor(tmp_path, script):
    """A program that edits: a shell script that gets the file as $1."""
    path = tmp_path / "the editor"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return f"'{path}'"


# --- init asks ----------------------------------------------------------------------------------------------


def test_init_asks_for_name_and_address(terminal, tmp_path):
    asked = terminal("init", tmp_path / "new")
    asked.expect("Your name: ")
    asked.type("Ada Lovelace\n")
    asked.expect("Your email address: ")
    asked.type("ada@example.org\n")
    assert asked.end() == 0
    with Engine.open(tmp_path / "new") as engine:
        assert (engine.author.name, engine.author.email) == ("Ada Lovelace", "ada@example.org")


def test_ctrl_c_at_a_question_ends_quietly_with_130_and_makes_nothing(terminal, tmp_path):
    asked = terminal("init", tmp_path / "new")
    asked.expect("Your name: ")
    asked.interrupt()
    assert asked.end() == 130
    assert "Traceback" not in asked.written and "Error" not in asked.written
    assert not (tmp_path / "new").exists()


# --- messages -----------------------------------------------------------------------------------------------


def test_the_editor_sees_the_status_as_comments_and_gives_the_message(cli, tmp_path):
    stage(cli.repository, "größe.txt")
    edit = editor(tmp_path, f'cp "$1" "{tmp_path}/seen"; echo "typed by hand\n\nand a body" >> "$1"')
    arborfs("-C", cli.repository, "commit", env=PLAIN | {"EDITOR": edit})
    seen = (tmp_path / "seen").read_text().splitlines()
    assert "# On branch main, 1 change staged." in seen and "#   added    größe.txt" in seen
    assert all(line.startswith("#") for line in seen if line)
    assert cli.json("log")[0]["message"] == "typed by hand\n\nand a body"


def test_visual_goes_before_editor(cli, tmp_path):
    stage(cli.repository, "a")
    visual = editor(tmp_path, 'echo "by VISUAL" > "$1"')
    arborfs("-C", cli.repository, "commit", env=PLAIN | {"EDITOR": "false", "VISUAL": visual})
    assert cli.json("log")[0]["message"] == "by VISUAL"


def test_an_editor_may_put_another_file_in_the_place_of_the_first(cli, tmp_path):
    stage(cli.repository, "a")
    edit = editor(tmp_path, 'echo "# mine\nreplaced" > "$1.new"; touch -r "$1" "$1.new"; mv "$1.new" "$1"')
    arborfs("-C", cli.repository, "commit", env=PLAIN | {"EDITOR": edit})
    assert cli.json("log")[0]["message"] == "replaced"


@pytest.mark.parametrize("script", ["true", 'echo "# only a comment" > "$1"', ': > "$1"'])
def test_an_empty_message_aborts_says_so_and_keeps_what_is_staged(cli, tmp_path, script):
    stage(cli.repository, "a")
    done = arborfs("-C", cli.repository, "commit", env=PLAIN | {"EDITOR": editor(tmp_path, script)}, check=False)
    assert done.returncode == 1 and done.stdout == "" and "Aborted! Empty commit message" in done.stderr
    assert cli.json("log") == [] and cli.json("status")["changes"]


def test_an_editor_that_fails_stops_the_commit(cli, tmp_path):
    stage(cli.repository, "a")
    script = 'echo "a message" > "$1"; exit 3'
    done = arborfs("-C", cli.repository, "commit", env=PLAIN | {"EDITOR": editor(tmp_path, script)}, check=False)
    assert done.returncode == 1 and "Error: " in done.stderr and "Traceback" not in done.stderr
    assert cli.json("log") == []


def test_the_editor_is_not_opened_where_nothing_is_staged(cli, tmp_path):
    edit = editor(tmp_path, f"touch '{tmp_path}/opened'")
    assert arborfs("-C", cli.repository, "commit", env=PLAIN | {"EDITOR": edit}, check=False).returncode == 4
    assert not (tmp_path / "opened").exists()


def test_without_editor_and_terminal_the_way_out_is_named(cli):
    stage(cli.repository, "a")
    done = arborfs("-C", cli.repository, "commit", env=PLAIN, check=False)
    assert done.returncode == 2 and "-m" in done.stderr and "EDITOR" in done.stderr


def test_the_editor_has_the_terminal(terminal, cli, tmp_path):
    stage(cli.repository, "a")
    edit = editor(tmp_path, 'printf "message? "; read line; echo "$line" > "$1"')
    shown = terminal("-C", cli.repository, "commit", EDITOR=edit)
    shown.expect("message? ")
    shown.type("typed on the keyboard\n")
    assert shown.end() == 0
    assert cli.json("log")[0]["message"] == "typed on the keyboard"


def test_a_long_status_is_cut_short_for_the_editor(cli, tmp_path):
    with Engine.open(cli.repository) as engine:
        for number in range(130):
            engine.working_tree("main").put_file((b"%03d" % number,), BytesSource(b"x"), mtime=1)
    edit = editor(tmp_path, f'cp "$1" "{tmp_path}/seen"')
    arborfs("-C", cli.repository, "commit", env=PLAIN | {"EDITOR": edit}, check=False)
    seen = (tmp_path / "seen").read_text()
    assert "#   added    099\n#   and 30 more\n" in seen and "100\n" not in seen


@pytest.mark.parametrize(
    "text, message",
    [
        ("", ""),
        ("# a\n\n  \n# b", ""),
        ("one  \n\ntwo\n\n# c\n", "one\n\ntwo"),
        ("\n\n  indented\n", "  indented"),
        ("see #12\n", "see #12"),
    ],
)
def test_a_message_is_what_is_no_comment(text, message):
    assert message_in(text) == message


# --- width and colour ---------------------------------------------------------------------------------------


def test_a_table_fits_the_terminal_and_is_whole_in_a_pipe(terminal, cli):
    long = "measurements-of-the-second-camera-" * 3 + "数据" * 10
    cli("dataset", "create", long, "float32", "3")
    cli("dataset", "create", "b", "float32", "3")
    shown = terminal("-C", cli.repository, "dataset", "list", columns=50)
    assert shown.end() == 0
    lines = shown.written.splitlines()
    assert len(lines) == 3 and max(map(cells, lines)) == 50
    assert lines[1].startswith("b ") and lines[2].startswith("measurements") and "…" in lines[2] and "数据 " in lines[2]
    places = [cells(line[: line.index(word)]) for line, word in zip(lines, ("schema", "<f4", "<f4"), strict=True)]
    assert len(set(places)) == 1, "columns stand under one another"
    assert long in arborfs("-C", cli.repository, "dataset", "list").stdout


def test_colours_are_for_terminals_that_are_wanted_in_colour(terminal, cli):
    stage(cli.repository, "a.txt")
    words = ("-C", cli.repository, "diff")
    coloured, plain = terminal(*words), terminal(*words, NO_COLOR="1")
    assert coloured.end() == plain.end() == 0
    assert "\x1b[32m" in coloured.written and "\x1b" not in plain.written
    assert "\x1b" not in arborfs(*words).stdout


def test_an_image_is_drawn_on_a_terminal_and_written_as_numbers_in_a_pipe(terminal, cli):
    with Repository(cli.repository) as repo, repo.checkout(write=True) as checkout:
        image = np.zeros((20, 40), np.uint8)
        image[:, 20:] = 255
        checkout.datasets.init_dataset("images", prototype=image)["0"] = image
    words = ("-C", cli.repository, "view", "images", "0")
    shown, written = terminal(*words, columns=60), terminal(*words, "--numbers")
    assert shown.end() == written.end() == 0
    assert shown.written.splitlines() == ["uint8 20 x 40", *[" " * 30 + "@" * 30] * 15]
    assert "255" in written.written
    assert "255" in arborfs(*words).stdout


def test_a_value_cannot_move_the_cursor(terminal, cli):
    with Repository(cli.repository) as repo, repo.checkout(write=True) as checkout:
        text = np.array(["\x1b[2J"])
        checkout.datasets.init_dataset("texts", prototype=text)["0"] = text
    shown = terminal("-C", cli.repository, "view", "texts", "0")
    assert shown.end() == 0 and "\x1b" not in shown.written


# --- completion ---------------------------------------------------------------------------------------------


def test_the_tab_key_in_bash_completes_step_by_step(terminal, cli):
    cli("dataset", "create", "camera/left", "float32")
    cli("dataset", "create", "it's", "float32")
    bash = terminal(program=("bash", "--norc", "--noprofile", "-i"), columns=300, TERM="dumb", PS1="> ")
    bash.type(f'arborfs() {{ {sys.executable} -m fusefs.cli "$@"; }}; cd {cli.repository}\n')
    bash.type('eval "$(arborfs completion bash)"; echo read""y\n')
    bash.expect("\nready\n")
    bash.type("arborfs dataset remove cam\t")
    bash.expect("remove camera/")
    bash.type("\t")
    bash.expect("camera/left ")  # the first word had no space behind it, this one has
    bash.type("\n")
    bash.expect("Successfully removed dataset: camera/left\n")
    bash.type("arborfs dataset remove i\t")
    bash.expect("it\\'s ")
    bash.type("\n")
    bash.expect("Successfully removed dataset: it's\n")
    bash.type("exit\n")
    assert bash.end() == 0


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_the_tab_key_in_zsh_completes_step_by_step(terminal, cli, tmp_path):
    cli("dataset", "create", "camera/left", "float32")
    cli("dataset", "create", "it's", "float32")
    cli("branch", "create", "experiment")
    zsh = terminal(program=("zsh", "-f", "-i"), columns=300, TERM="dumb", PS1="> ", HOME=str(tmp_path))
    zsh.type(f'arborfs() {{ {sys.executable} -m fusefs.cli "$@"; }}; cd {cli.repository}; unsetopt beep prompt_sp\n')
    zsh.type('autoload -Uz compinit; compinit -u -D; eval "$(arborfs completion zsh)"; echo read""y\n')
    zsh.expect("\nready\n")
    zsh.type("arborfs dataset remove --branch=m\t")
    zsh.expect("--branch=main ")
    zsh.type("cam\t")
    zsh.expect("camera/")
    zsh.type("\t")
    zsh.expect("left ")  # the first word had no space behind it, this one has
    zsh.type("\n")
    zsh.expect("Successfully removed dataset: camera/left\n")
    zsh.type("arborfs dataset remove i\t")
    zsh.expect("it\\'s ")
    zsh.type("\n")
    zsh.expect("Successfully removed dataset: it's\n")
    zsh.type("arborfs check\t")
    zsh.expect("checkout ")
    zsh.type("e\t")
    zsh.expect("experiment ")
    zsh.type("\nexit\n")
    assert zsh.end() == 0
    assert "head set to branch: experiment\n" in zsh.written


# --- ends ---------------------------------------------------------------------------------------------------


def test_ctrl_c_while_working_ends_quietly_with_130(terminal, cli, tmp_path):
    """The editor is what it is busy with: there it can be caught at a known moment."""
    stage(cli.repository, "a")
    edit = editor(tmp_path, "trap 'exit 0' INT; printf ready; read line")
    shown = terminal("-C", cli.repository, "commit", EDITOR=edit)
    shown.expect("ready")
    shown.type("\x03")
    assert shown.end() == 130
    assert "Traceback" not in shown.written and "Error" not in shown.written
    assert cli.json("log") == []


def test_a_reader_that_has_seen_enough_ends_the_command_without_a_word(cli):
    with Engine.open(cli.repository) as engine:
        tree = engine.working_tree("main")
        for number in range(3000):
            tree.put_file((b"%0200d" % number,), BytesSource(b"x"), mtime=1)
    command = [sys.executable, "-m", "fusefs.cli", "-C", str(cli.repository), "status"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("On branch main, 3,000 changes")
        process.stdout.close()
        said = process.stderr.read()
        process.wait(PATIENCE)
    assert said == "" and process.returncode not in (0, -signal.SIGSEGV)
