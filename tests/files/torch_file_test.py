"""Files that torch saved are read exactly; malicious ones are refused in a line, and never run."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from cgan_jax.errors import UsageError
from cgan_jax.files import torch_file
from tests.torch_files import OPENED, REBUILD, pickled, row, state_dict_file, storage, tensor, value, zipped

NUMBERS = np.arange(6, dtype="<f4").reshape(2, 3)
BYTES = NUMBERS.tobytes()


@pytest.fixture(params=[row, zipped], ids=["row", "zip"])
def file(request):
    """Makes a file of a pickle and storages, of the older or the newer form."""
    return request.param


def refused(content):
    with pytest.raises(UsageError) as caught:
        torch_file.read(content, "w.pth")
    message = str(caught.value)
    assert "\n" not in message and len(message) < 300
    assert message.startswith("w.pth is not a whole file of PyTorch tensors: ")
    return message


@pytest.mark.parametrize("as_zip", [False, True])
def test_what_torch_saves_is_what_is_read(as_zip, tmp_path):
    torch = pytest.importorskip("torch")
    kinds = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float64]
    base = torch.arange(-12.0, 12.0).reshape(2, 3, 4)
    saved = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).state_dict()
    saved |= {str(kind): base.to(kind) for kind in kinds}
    saved |= {"a part": base.permute(2, 0, 1)[1:, :, ::2], "the same": base, "": torch.nn.Parameter(base[1, 1:].T)}
    torch.save(saved, tmp_path / "w.pth", _use_new_zipfile_serialization=as_zip)
    read = torch_file.read((tmp_path / "w.pth").read_bytes(), "w.pth")
    assert list(read) == list(saved)
    for name, expected in saved.items():
        expected = expected.detach().numpy()
        assert read[name].dtype == expected.dtype and read[name].flags.c_contiguous
        np.testing.assert_array_equal(read[name], expected, name)


def test_an_entry_is_read_and_what_is_beside_it_is_not(tmp_path):
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(3, 2)
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"betas": (0.5, 0.999)}]}
    beside = {"optimizer": optimizer, "best_fid": np.float64(4.16), "step": 7, "lecam": {"a": torch.zeros(0)}}
    torch.save({"state_dict": layer.state_dict(), **beside}, tmp_path / "w.pth")
    read = torch_file.read((tmp_path / "w.pth").read_bytes(), "w.pth", "state_dict")
    assert {name: array.shape for name, array in read.items()} == {"weight": (2, 3), "bias": (2,)}
    assert "'state_dict' is not a tensor" in refused((tmp_path / "w.pth").read_bytes())


def test_files_by_hand_are_read_too(file):
    """So that the wrong ones below are refused for what is wrong with them."""
    read = torch_file.read(file(pickled(a=tensor(), b=tensor(1, (2, 2), (1, 3))), _0=BYTES), "w.pth")
    np.testing.assert_array_equal(read["a"], NUMBERS)
    np.testing.assert_array_equal(read["b"], [[1, 4], [2, 5]])
    assert torch_file.read(state_dict_file({"a": NUMBERS}), "w.pth")["a"].tolist() == NUMBERS.tolist()


class Calls:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


GLOBALS = [
    b"cos\nsystem\n",
    b"cposix\nsystem\n",
    b"cbuiltins\neval\n",
    b"c__builtin__\neval\n",
    b"cbuiltins\ngetattr\n",
    b"cbuiltins\n__import__\n",
    b"csubprocess\nPopen\n",
    b"ctorch\nload\n",
    b"ctorch._utils\n_rebuild_tensor\n",
    b"ctorch.storage\n_load_from_bytes\n",
    b"cnumpy\nload\n",
    b"ccollections\n_sys\n",
    b"ccgan_jax.files.torch_file\nread\n",
    value("collections") + value("OrderedDict.fromkeys") + b"\x93",
    value("torch._utils") + value("_rebuild_tensor_v2.__globals__") + b"\x93",
    value("torch") + value("FloatStorage.format") + b"\x93",
    value("line\nfeed") + value("x" * 1000) + b"\x93",
]


@pytest.mark.parametrize("name", GLOBALS)
def test_nothing_else_is_looked_up(name, file):
    assert "which is refused" in refused(file(pickled(a=name), _0=BYTES))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_call_is_not_made(protocol, tmp_path):
    for call in (
        Calls(os.system, f"touch {tmp_path / 'ran'}"),
        Calls(eval, f"open({str(tmp_path / 'ran')!r}, 'w')"),
        {"a": Calls(getattr, "text", "join")},
    ):
        assert "which is refused" in refused(row(pickle.dumps(call, protocol), _0=BYTES))
    assert not list(tmp_path.iterdir())


def test_a_call_is_not_made_before_the_tensors_of_a_row_either(tmp_path):
    for part in (b"", pickle.dumps(0x1950A86A20F9469CFC6C, 2)):
        refused(part + pickle.dumps(Calls(os.system, f"touch {tmp_path / 'ran'}"), 2))
    keys = row(pickled(a=tensor())).removesuffix(pickle.dumps([], 2))
    assert "which is refused" in refused(keys + pickle.dumps(Calls(os.system, f"touch {tmp_path / 'ran'}"), 2))
    assert not list(tmp_path.iterdir())


STATES = [
    REBUILD + value((None, {"__defaults__": (1, 2), "__code__": 3})) + b"b",
    REBUILD + value({"__wrapped__": 1}) + b"b",
    b"ccollections\nOrderedDict\n" + value((None, {"get": 1})) + b"b",
    b"ctorch\nFloatStorage\n" + value((None, {"__class__": 1})) + b"b",
    storage() + value((None, {"numel": 10**9})) + b"b",
    tensor() + value((None, {"offset": 5})) + b"b",
]


@pytest.mark.parametrize("state", STATES)
def test_a_state_that_a_pickle_sets_stays_in_the_file(state, file):
    refused(file(pickled(a=state, b=tensor()), _0=BYTES))
    read = torch_file.read(file(pickled(a=tensor()), _0=BYTES), "w.pth")
    np.testing.assert_array_equal(read["a"], NUMBERS)


BEYOND = {
    "one further": tensor(1),
    "one row more": tensor(0, (3, 3)),
    "a stride too long": tensor(0, (2, 3), (4, 1)),
    "a negative offset": tensor(-1, (2, 2), (2, 1)),
    "a negative stride": tensor(5, (6,), (-1,)),
    "a negative size": tensor(0, (-2, -3)),
    "two negative sizes that make a positive": tensor(0, (-1, -1), (1, 1)),
    "more numbers than there are, all the same": tensor(0, (10**12,), (0,)),
    "2^64 numbers, which wrap around to none": tensor(0, (2**32, 2**32), (0, 0)),
    "an offset that wraps around": tensor(2**64, (2, 3)),
    "a stride that wraps around": tensor(0, (2, 3), (2**62, 1)),
    "no numbers": tensor(0, (0, 3)),
    "no numbers, many times": tensor(0, (0, 10**30)),
    "sizes without strides": tensor(0, (2, 3), (1,)),
    "a hundred axes": tensor(0, (1,) * 100, (1,) * 100),
    "a size that is no number": tensor(0, ("2", 3)),
    "a size that is a fraction": tensor(0, (2.0, 3)),
    "a size that is true": tensor(0, (True, 3)),
    "no size": tensor(0, None),
    "sizes in a list": tensor(0, [2, 3]),
    "no offset": tensor(None),
}


@pytest.mark.parametrize("wrong", BEYOND)
def test_a_tensor_that_is_not_within_its_storage(wrong, file):
    assert "'a'" in refused(file(pickled(a=BEYOND[wrong]), _0=BYTES))


STORAGES = {
    "larger than its bytes": tensor(numel=7),
    "smaller than its bytes": tensor(size=(1,), stride=(1,), numel=5),
    "larger than any memory": tensor(numel=2**62),
    "negative": tensor(numel=-6),
    "not a number": tensor(numel="6"),
    "of wider numbers": tensor(kind=b"DoubleStorage"),
    "elsewhere": tensor(key="1"),
    "outside of the archive": tensor(key="../../../etc/hostname"),
    "without a name": tensor(key=0),
    "with a view": tensor(view=value(("k", 0, 3))),
    "described in two ways": tensor() + b"0" + tensor(numel=5),
    "not described": REBUILD + b"(NK\x00" + value((2, 3)) + value((3, 1)) + b"\x89NtR",
    "of another kind": b"(" + value("module") + value("x") + b"tQ",
    "of text": REBUILD + b"(" + value("storage") + value(0) + value((2, 3)) + value((3, 1)) + b"\x89NtR",
}


@pytest.mark.parametrize("wrong", STORAGES)
def test_a_storage_that_is_not_what_it_is_said_to_be(wrong, file):
    refused(file(pickled(a=STORAGES[wrong]), _0=BYTES))


@pytest.mark.parametrize("length", [-1, 0, 5, 7, 2**40, 2**62, -(2**62)])
def test_a_row_that_tells_a_second_length(length):
    refused(row(pickled(a=tensor()), lengths=[length], _0=BYTES))


def test_a_file_cut_short(file):
    whole = file(pickled(a=tensor()), _0=BYTES)
    for length in range(len(whole)):
        refused(whole[:length])


@pytest.mark.parametrize("held", [value(3), value(None), value("a"), b"(NNt", value({"b": 1}), OPENED + b"u"])
def test_an_entry_that_is_no_tensor(held):
    assert "'a' is not a tensor" in refused(row(pickled(a=held, b=tensor()), _0=BYTES))


@pytest.mark.parametrize("whole", [[1], 3, {1: 2}, None])
def test_something_else_than_named_tensors(whole):
    assert "something else than named tensors" in refused(row(pickle.dumps(whole, 2)))


def test_files_of_another_kind():
    assert "little endian" in refused(row(pickled(a=tensor()), little_endian=False, _0=BYTES))
    assert "little endian" in refused(zipped(pickled(a=tensor()), b"big", _0=BYTES))
    for content in (b"", b"PK", b"hello", b"<!DOCTYPE html>\n<html>", bytes(1000), b"\x80\x02}."):
        refused(content)


def test_a_zip_of_something_else():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/readme.txt", "hello")
    assert "a zip with 0 files data.pkl" in refused(file.getvalue())


def test_a_zip_that_is_altered():
    whole = zipped(pickled(a=tensor()), _0=BYTES)
    at = whole.index(BYTES)
    assert "CRC" in refused(whole[:at] + b"!" + whole[at + 1 :])


def test_many_names_of_one_storage_are_no_way_to_fill_the_memory():
    floats = np.zeros(200_000, "<f4").tobytes()
    whole = tensor(0, (200_000,), (1,), numel=200_000)
    names = {f"a{i}": whole for i in range(200)}
    assert "unpack to" in refused(zipped(pickled(**names), _0=floats))
