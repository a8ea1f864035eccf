"""
A signal that falls into a weak reference's callback, or a `__del__`, ends the command as it does anywhere else.

Python alone prints "Exception ignored in" there, and runs on; each command here would end with 0, its file written.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.commands import Done, Project, python, server, small

IMPORTING = "note: T2T700 importing small:Small"
ENDS = {
    "SIGINT": (130, "t2t: interrupted; no file is half written"),
    "SIGTERM": (143, "t2t: terminated; no file is half written"),
}

#: Where nobody waits: `lose()` has `strike()` called there.
NOBODY_WAITS = {
    "a callback": """
        def lose():
            thing = Thing()
            references.append(weakref.ref(thing, lambda _: strike()))
            del thing
    """,
    "__del__": """
        def lose():
            Deleted()
    """,
    "__del__ in a callback in __del__": """
        def call_back(_):
            Deleted()

        class Outer:
            def __del__(self):
                thing = Thing()
                references.append(weakref.ref(thing, call_back))
                del thing

        def lose():
            Outer()
    """,
    "a cycle": """
        def lose():
            deleted = Deleted()
            deleted.itself = deleted
            del deleted
            gc.collect()
    """,
    "a generator's end": """
        def generator():
            try:
                yield
            finally:
                strike()

        def lose():
            started = generator()
            next(started)
            del started
    """,
}
HEAD = """\
import gc, os, signal, sys, weakref

references = []

def strike():
    signal.raise_signal(signal.{number})

class Thing:
    pass

class Deleted:
    def __del__(self):
        strike()
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return small(tmp_path)


def before_the_model(project: Project, code: str) -> None:
    """Code that runs when the model is imported."""
    model = project.folder / "small.py"
    model.write_text(f"{textwrap.dedent(code)}\n{model.read_text()}")


def ended(done: Done, number: str, project: Project, before: list[str]) -> None:
    """The command ended by this signal, says one line, and leaves the folder as it was."""
    status, line = ENDS[number]
    assert (done.code, done.out, done.err) == (status, "", f"{IMPORTING}\n{line}\n")
    assert project.listing() == before


@pytest.mark.parametrize("number", ENDS)
@pytest.mark.parametrize("lose", NOBODY_WAITS.values(), ids=NOBODY_WAITS)
def test_a_signal_where_nobody_waits_ends_the_command(project: Project, lose: str, number: str) -> None:
    code = HEAD.format(number=number) + textwrap.dedent(lose)
    before_the_model(project, f"{code}\nlose()\nos.write(2, b'the import runs on')")
    before = project.listing()

    ended(server().run("small.yaml", cwd=project.folder), number, project, before)


@pytest.mark.parametrize("number", ENDS)
def test_a_signal_in_the_callback_of_an_import_ends_the_command(project: Project, number: str) -> None:
    """Python's own: it takes away the lock of a module that is imported now."""
    before_the_model(
        project,
        f"""
        import signal, sys

        def watch(frame, event, _):
            if event == "call" and frame.f_code.co_qualname == "_get_module_lock.<locals>.cb":
                sys.setprofile(None)
                signal.raise_signal(signal.{number})

        sys.setprofile(watch)
        import colorsys
        """,
    )
    before = project.listing()

    ended(server().run("small.yaml", cwd=project.folder), number, project, before)


@pytest.mark.parametrize("number", ENDS)
@pytest.mark.parametrize("call", ["pwrite", "fsync", "rename"])
def test_a_signal_where_nobody_waits_leaves_no_file_half_written(project: Project, call: str, number: str) -> None:
    code = HEAD.format(number=number) + textwrap.dedent(NOBODY_WAITS["a callback"])
    code += textwrap.dedent(f"""
        real = os.{call}
        def losing(*arguments, **named):
            lose()
            return real(*arguments, **named)
        os.{call} = losing
    """)
    before_the_model(project, code)
    project.output.write_bytes(b"older")
    before = project.listing()

    ended(server().run("small.yaml", "--force", cwd=project.folder), number, project, before)
    assert project.output.read_bytes() == b"older"


def test_other_callbacks_run_before_the_signal_is_told_again(project: Project) -> None:
    """An object with three: the signal comes in the first, the others are run whole."""
    before_the_model(
        project,
        HEAD.format(number="SIGINT")
        + textwrap.dedent("""
        def tell(_):
            sys.stderr.write("called\\n")

        def lose():
            thing = Thing()
            calls = (tell, tell, lambda _: strike())
            references.extend(weakref.ref(thing, call) for call in calls)
            del thing

        lose()
        """),
    )
    done = server().run("small.yaml", cwd=project.folder)

    assert (done.code, done.err.splitlines()) == (130, [IMPORTING, "called", "called", ENDS["SIGINT"][1]])


def test_a_call_that_follows_at_once_is_interrupted(project: Project) -> None:
    """The signal comes before a line that takes long: it is told in what the line calls, and not when that ends."""
    before_the_model(
        project,
        HEAD.format(number="SIGINT")
        + textwrap.dedent("""
        def takes_long(_):
            os.write(2, b"this has begun")

        def lose():
            takes_long(Deleted().__class__)

        lose()
        """),
    )
    before = project.listing()

    ended(server().run("small.yaml", cwd=project.folder), "SIGINT", project, before)


def test_what_else_nobody_waits_for_is_told_as_before(project: Project) -> None:
    before_the_model(
        project,
        """
        class Deleted:
            def __del__(self):
                raise ValueError("not ours")

        Deleted()
        """,
    )
    done = server().run("small.yaml", cwd=project.folder)

    assert done.code == 0
    assert "Exception ignored in: <function Deleted.__del__ at 0x" in done.err
    assert done.err.endswith("ValueError: not ours\n")
    assert project.output.exists()


def test_a_signal_at_the_end_of_python_says_nothing(project: Project) -> None:
    """What there was to do is done: nothing is under way that it could end."""
    before_the_model(project, "import atexit, signal\natexit.register(signal.raise_signal, signal.SIGINT)")

    done = python("-m", "t2t", "small.yaml", cwd=project.folder)

    assert (done.code, done.err) == (0, f"{IMPORTING}\n")
    assert project.output.exists()


@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_while_t2t_is_imported_ends_it(tmp_path: Path, number: str, status: int) -> None:
    """When numpy is looked for; there is no line yet, the console is not imported."""
    script = HEAD.format(number=number) + textwrap.dedent("""
        class Losing:
            def find_spec(self, name, path=None, target=None):
                if name == "numpy":
                    Deleted()

        sys.meta_path.insert(0, Losing())
        import t2t.__main__
        sys.argv = ["t2t", "--help"]
        sys.exit(t2t.__main__.main())
    """)
    done = python("-c", script, cwd=tmp_path)

    assert (done.code, done.out, done.err) == (status, "", "")


def test_a_program_that_uses_the_api_keeps_its_own(project: Project) -> None:
    script = textwrap.dedent("""
        import signal, sys
        import t2t
        hook, before = sys.unraisablehook, [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        t2t.convert("small.yaml")
        print(sys.unraisablehook is hook, before == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)])
        print("t2t.interrupts" in sys.modules)
    """)
    done = python("-c", script, cwd=project.folder)

    assert (done.code, done.out, done.err) == (0, "True True\nFalse\n", "")
