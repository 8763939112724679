"""Runs a pickle without Python's own unpickler: nothing is imported or called on its word.

A pickle is a program for a machine with a stack and a memo. Python's unpickler imports and calls
what the program names, and takes memory for what it announces: nine bytes can ask for gigabytes.
This machine knows the instructions that weights are written with and refuses every other by name.

1. A global is one of the caller's `Constructor`s or `Record`s, or the file is refused. Nothing is
   imported; what is called are functions of this package that were written for it.
2. No size is believed before the file has shown as many bytes; memo indices are keys of a dict.
3. The number of instructions is bounded, and with it time and memory: none makes more than a few
   hundred bytes that the file does not hold.
"""

import pickle
import pickletools
import struct
from collections.abc import Callable, Mapping
from typing import Any

from mrcnn_tf.weights.pickle_values import (
    Constructor,
    Record,
    RefusedError,
    Unbuilt,
    checked_key,
    printable,
)

# A checkpoint of a Mask R-CNN with its optimizer has some ten thousand.
_MOST_INSTRUCTIONS = 2_000_000
_MOST_LONG_BYTES = 64  # of an integer; states of random generators have 16 and more
_LONGEST_GLOBAL = 256


def load(
    content: bytes | memoryview,
    globals_: Mapping[tuple[str, str], Any],
    persistent_load: Callable[[Any], Any] | None = None,
    start: int = 0,
) -> tuple[Any, int]:
    """Run one pickle.

    Args:
      content: bytes of a file.
      globals_: {(module, name): a `Constructor` or `Record`}, all that the pickle may ask for.
      persistent_load: called with what the pickle says of something outside of it, tensors'
        storages for one; without it that is refused.
      start: where in `content` the pickle begins.

    Returns:
      What it holds: dicts, lists, tuples, strings, bytes, numbers, `Record`s and what the
      constructors made; and where the pickle ends.

    Raises:
      RefusedError: it asks for something else, which is named.
      ValueError: it is no pickle, or it is cut off or damaged.
    """
    machine = _Machine(content, globals_, persistent_load, start)
    try:
        return machine.run(), machine.position
    except RefusedError:
        raise
    except MemoryError as error:
        raise ValueError("it takes more memory than there is") from error
    except (ValueError, TypeError, LookupError, OverflowError, struct.error) as error:
        text = str(error)
        raise ValueError(text if text.startswith(_DAMAGED) else f"{_DAMAGED}: {text}") from error


_DAMAGED = "cut off or damaged"


class _Machine:
    """One run: the stack, the stacks below its marks, the memo, the place in the file."""

    def __init__(
        self,
        content: bytes | memoryview,
        globals_: Mapping[tuple[str, str], Any],
        persistent_load: Callable[[Any], Any] | None,
        start: int,
    ):
        self._content = memoryview(content)
        self._globals = globals_
        self._persistent_load = persistent_load
        self.position = start
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(_MOST_INSTRUCTIONS):
            code = self._take(1)[0]
            if code == pickle.STOP[0]:
                return self._stack.pop()
            instruction = _INSTRUCTIONS.get(code)
            if instruction is None:
                raise _unknown(code, self.position - 1)
            instruction(self)
        raise RefusedError(
            f"it has more than {_MOST_INSTRUCTIONS:,} instructions; files of weights have thousands"
        )

    def _take(self, count: int) -> memoryview:
        """The next bytes of the file."""
        left = len(self._content) - self.position
        if count > left:
            raise ValueError(
                f"{_DAMAGED}: {count:,} bytes are announced at byte {self.position}, {left:,} left"
            )
        self.position += count
        return self._content[self.position - count : self.position]

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _items(self) -> list[Any]:
        """Take what lies above the last mark."""
        items, self._stack = self._stack, self._below.pop()
        return items

    # --- Values ---------------------------------------------------------------------------------

    def text(self, length: str, encoding: str) -> None:
        self._push(str(self._take(self._number(length)), encoding))

    def raw(self, length: str) -> None:
        self._push(bytes(self._take(self._number(length))))

    def number(self, form: str) -> None:
        self._push(self._number(form))

    def long(self) -> None:
        size = self._number("<B")
        if size > _MOST_LONG_BYTES:
            raise RefusedError(f"it holds an integer of {size} bytes")
        self._push(int.from_bytes(self._take(size), "little", signed=True))

    def tuple_of_items(self) -> None:
        items = self._items()
        self._push(tuple(items))

    def tuple_of(self, count: int) -> None:
        if len(self._stack) < count:
            raise ValueError("too little on the stack")
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    # --- Filling containers ---------------------------------------------------------------------

    def extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Record):  # which holds nothing
            raise RefusedError(f"it appends to a {type(target).__name__}")

    def frozen_set(self) -> None:
        self._items()
        self._push(_SET)

    def append(self) -> None:
        item = self._stack.pop()
        self.extend([item])

    def set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[checked_key(key)] = value
        elif not isinstance(target, Record):
            raise RefusedError(f"it sets items of a {type(target).__name__}")

    def set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self.set_items([key, value])

    # --- The memo -------------------------------------------------------------------------------

    def put(self, key: int) -> None:
        self._memo[key] = value = self._stack[-1]
        if isinstance(value, Unbuilt):
            value.memo_keys.append(key)

    def memoize(self) -> None:
        self.put(len(self._memo))

    def get(self, key: int) -> None:
        self._push(self._memo[key])

    # --- Globals and what is made with them -----------------------------------------------------

    def global_of_lines(self) -> None:
        names = []
        for _ in range(2):
            ahead = bytes(self._content[self.position : self.position + _LONGEST_GLOBAL])
            line, newline, _ = ahead.partition(b"\n")
            if not newline:
                raise ValueError("a name without an end")
            self.position += len(line) + 1
            names.append(str(line, "utf-8"))
        self._find(*names)

    def global_of_stack(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise ValueError("a name that is no text")
        self._find(module, name)

    def _find(self, module: str, name: str) -> None:
        if (module, name) not in self._globals:
            raise RefusedError(
                f"it asks for {printable(module)}.{printable(name)}, and only tensors, arrays and "
                "plain values are read from a pickle; nothing of it was run. If it holds a whole "
                "model or a program's own objects, write its state_dict() alone there"
            )
        self._push(self._globals[module, name])

    def reduce(self) -> None:
        """Call; also the instruction NEWOBJ, which means the same here."""
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, Constructor) or not isinstance(arguments, tuple):
            raise RefusedError("it calls something that is no function")
        self._push(function.make(*arguments))

    def build(self) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, Unbuilt):
            if target.is_built:  # once, so that the time for its keys in the memo is spent once
                raise RefusedError("it sets the state of one array twice")
            self._stack[-1] = built = target.build(state)
            self._memo.update(dict.fromkeys(target.memo_keys, built))
            target.is_built = True
        elif not isinstance(target, dict | Record):  # attributes of a dict: torch's `_metadata`
            raise RefusedError(f"it sets the state of a {type(target).__name__}")

    def persistent(self) -> None:
        if self._persistent_load is None:
            raise RefusedError("its tensors are not in it")
        self._push(self._persistent_load(self._stack.pop()))

    def frame(self) -> None:
        size = self._number("<Q")
        left = len(self._content) - self.position
        if size > left:
            raise ValueError(f"{_DAMAGED}: a frame of {size:,} bytes, {left:,} are left")

    def protocol(self) -> None:
        if self._number("<B") > pickle.HIGHEST_PROTOCOL:
            raise ValueError("an unknown version of pickles")


def _unknown(code: int, position: int) -> ValueError:
    names = [known.name for known in pickletools.opcodes if known.code == chr(code)]
    if not names:
        return ValueError(f"{_DAMAGED}: byte {position} is no instruction of a pickle")
    return RefusedError(
        f"it uses the instruction {names[0]} (byte {position}), which weights have no need for"
    )


# Sets are of no use for weights; they are passed over, with what is put into them.
_SET = Record("set")
_INSTRUCTIONS: dict[int, Callable[[_Machine], None]] = {
    code[0]: instruction
    for code, instruction in {
        pickle.PROTO: _Machine.protocol,
        pickle.FRAME: _Machine.frame,
        pickle.MARK: _Machine.mark,
        pickle.POP: lambda m: m._stack.pop(),
        pickle.POP_MARK: lambda m: m._items(),
        pickle.NONE: lambda m: m._push(None),
        pickle.NEWTRUE: lambda m: m._push(True),
        pickle.NEWFALSE: lambda m: m._push(False),
        pickle.BININT: lambda m: m.number("<i"),
        pickle.BININT1: lambda m: m.number("<B"),
        pickle.BININT2: lambda m: m.number("<H"),
        pickle.LONG1: _Machine.long,
        pickle.BINFLOAT: lambda m: m.number(">d"),
        pickle.SHORT_BINUNICODE: lambda m: m.text("<B", "utf-8"),
        pickle.BINUNICODE: lambda m: m.text("<I", "utf-8"),
        pickle.BINUNICODE8: lambda m: m.text("<Q", "utf-8"),
        # Python 2 pickled bytes and text alike; latin1 keeps both.
        pickle.SHORT_BINSTRING: lambda m: m.text("<B", "latin1"),
        pickle.BINSTRING: lambda m: m.text("<I", "latin1"),
        pickle.SHORT_BINBYTES: lambda m: m.raw("<B"),
        pickle.BINBYTES: lambda m: m.raw("<I"),
        pickle.BINBYTES8: lambda m: m.raw("<Q"),
        pickle.BYTEARRAY8: lambda m: m.raw("<Q"),
        pickle.EMPTY_TUPLE: lambda m: m._push(()),
        pickle.TUPLE: _Machine.tuple_of_items,
        pickle.TUPLE1: lambda m: m.tuple_of(1),
        pickle.TUPLE2: lambda m: m.tuple_of(2),
        pickle.TUPLE3: lambda m: m.tuple_of(3),
        pickle.EMPTY_LIST: lambda m: m._push([]),
        pickle.APPEND: _Machine.append,
        pickle.APPENDS: lambda m: m.extend(m._items()),
        pickle.EMPTY_DICT: lambda m: m._push({}),
        pickle.SETITEM: _Machine.set_item,
        pickle.SETITEMS: lambda m: m.set_items(m._items()),
        pickle.EMPTY_SET: lambda m: m._push(_SET),
        pickle.FROZENSET: _Machine.frozen_set,
        pickle.ADDITEMS: lambda m: m.extend(m._items()),
        pickle.BINPUT: lambda m: m.put(m._number("<B")),
        pickle.LONG_BINPUT: lambda m: m.put(m._number("<I")),
        pickle.MEMOIZE: _Machine.memoize,
        pickle.BINGET: lambda m: m.get(m._number("<B")),
        pickle.LONG_BINGET: lambda m: m.get(m._number("<I")),
        pickle.GLOBAL: _Machine.global_of_lines,
        pickle.STACK_GLOBAL: _Machine.global_of_stack,
        pickle.REDUCE: _Machine.reduce,
        pickle.NEWOBJ: _Machine.reduce,
        pickle.BUILD: _Machine.build,
        pickle.BINPERSID: _Machine.persistent,
    }.items()
}
