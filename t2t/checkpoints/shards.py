"""
Keras' weights in several HDF5 files: `x.weights.json` says which group lies in which.

    {"metadata": {"total_size": 15608.0},
     "weight_map": {"/layers/dense/vars": ["x_00000.weights.h5"], "/layers/p_re_lu/vars": "x_00000.weights.h5"}}

https://github.com/keras-team/keras/blob/master/keras/src/saving/saving_lib.py, ShardedH5IOStore
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

from t2t.checkpoints import keras
from t2t.checkpoints.files import is_address, read_all, refusal
from t2t.checkpoints.hdf5 import HDF5
from t2t.checkpoints.protobuf import Corrupt
from t2t.checkpoints.reader import Bytes, Reader
from t2t.names import shown
from t2t.problems import Location, Problem
from t2t.tensors import TensorRef

#: Limits: bytes of the .json, and how many files it may name.
MAX_SIZE = 2**26
MAX_FILES = 1000

_INCOMPLETE = "the save or the copy is incomplete"


class Shards(Reader):
    """
    The HDF5 files that a `.weights.json` names, as one checkpoint. They lie beside it; each has a process of its own.

    Raises CheckpointError T2T605 for a map that leads elsewhere or does not fit the files, and what `HDF5` raises.
    """

    def __init__(
        self,
        path: str,
        notes: tuple[Problem, ...] = (),
        checksums: bool = True,
    ) -> None:
        content, own = read_all(path, MAX_SIZE)
        self._parts: list[HDF5] = []
        try:
            files = file_names(content, is_address(path))
            identities = {path: own}
            for name in dict.fromkeys(name for names in files.values() for name in names):
                part = HDF5(os.path.join(os.path.dirname(path), name), (), checksums)
                self._parts.append(part)
                identities.update(part.identities)
            super().__init__(path, identities, notes)
            datasets, attributes, self._part_of = self._merged(files)
            layout = keras.layout(datasets, attributes)
        except Corrupt as error:
            self._end_all()
            raise refusal(error.code, str(error), path, error.hint) from error
        except BaseException:
            self._end_all()
            raise
        variables = tuple(replace(ref, shard=self._part_of[ref.key]) for ref in layout.variables)
        self.inventory = replace(layout, variables=variables).inventory(self.checksum)
        self.notes += tuple(replace(finding, at=Location(path)) for finding in layout.findings)

    def place(self, ref: TensorRef) -> str:
        """The HDF5 file that has the variable."""
        return self._parts[ref.shard].path

    def close(self) -> None:
        """Ends the processes that read."""
        super().close()
        self._end_all()

    def _end_all(self) -> None:
        for part in self._parts:
            part.close()

    def _fill(self, ref: TensorRef, out: Bytes) -> None:
        self._parts[ref.shard].read(ref, out)

    def _merged(
        self, files: dict[str, list[str]]
    ) -> tuple[dict[str, keras.Dataset], dict[str, dict[str, Any]], dict[str, int]]:
        """All datasets and attributes, and which part has a dataset; raises Corrupt where the map says otherwise."""
        datasets: dict[str, keras.Dataset] = {}
        attributes: dict[str, dict[str, Any]] = {}
        part_of: dict[str, int] = {}
        for i, part in enumerate(self._parts):
            name = os.path.basename(part.path)
            for key, dataset in part.datasets.items():
                if key in datasets:
                    other = os.path.basename(self._parts[part_of[key]].path)
                    raise Corrupt(f"{shown(other)} and {shown(name)} both have {shown(key)}", "T2T605")
                datasets[key], part_of[key] = dataset, i
                group = key.rpartition("/")[0]
                if name not in files.get(group, ()):
                    message = f"{shown(name)} has {shown(key)}, but the map does not say so"
                    raise Corrupt(message, "T2T605", "files of several saves lie here")
            for group, found in part.attributes.items():
                attributes.setdefault(group, {}).update(found)
        groups = {key.rpartition("/")[0] for key in datasets}
        for group in files:
            if group not in groups:
                raise Corrupt(f"no file has {shown(group)}, which the map names", "T2T605", _INCOMPLETE)
        return datasets, attributes, part_of


def file_names(content: bytes, address: bool) -> dict[str, list[str]]:
    """
    The files that each group lies in; raises Corrupt T2T603 (no such map) or T2T605 (it leads elsewhere).

    A name may be no more than a name: what is written in a file must not choose what else is read. At an address some
    more characters have a meaning.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Corrupt("the file is not JSON", "T2T603") from error
    found = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(found, dict) or not found:
        raise Corrupt("the file has no weight_map, which Keras' .weights.json has", "T2T603")
    files: dict[str, list[str]] = {}
    for group, value in found.items():
        names = value if isinstance(value, list) else [value]
        for name in names:
            if not isinstance(name, str) or not name:
                raise Corrupt(f"{shown(group)} lies in {shown(json.dumps(name))}, which is no file's name", "T2T605")
            if name in (".", "..") or not name.isprintable() or set(name) & set("/\\\0" + "?#%:" * address):
                message = f"{shown(group)} lies in {shown(name)}, which is no name of a file beside this one"
                raise Corrupt(message, "T2T605", "t2t follows only names of files in the same directory")
        files[group.strip("/")] = names
    if (count := len({name for names in files.values() for name in names})) > MAX_FILES:
        raise Corrupt(f"the map names {count} files, but at most {MAX_FILES} are read", "T2T611")
    return files
