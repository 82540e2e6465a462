import json

import pytest

from semiseg.errors import InputError, UserError
from semiseg.simulate.cohort import MARKER, check_range, cohort
from semiseg.simulate.worlds import RESOLUTION, simulate_world


def test_a_finished_cohort_is_kept_and_an_unfinished_one_is_made_again(tmp_path):
    def needed():
        with cohort(tmp_path, "covid", subjects=2, seed=0, size=64) as make:
            return make

    def interrupted():
        with cohort(tmp_path, "covid", subjects=2, seed=0, size=64):
            (tmp_path / "half.nii.gz").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert json.loads((tmp_path / MARKER).read_text())["complete"] is False
    assert needed()
    assert json.loads((tmp_path / MARKER).read_text())["complete"] is True
    assert not needed()
    for other in ({"subjects": 3}, {"seed": 1}, {"size": 32}):
        with (
            pytest.raises(InputError, match=r'got the cohort \{"world": "covid", "subjects": 2.*choose another --out'),
            cohort(tmp_path, "covid", **{"subjects": 2, "seed": 0, "size": 64, **other}),
        ):
            pass


@pytest.mark.parametrize("text", ["", "5", "[]", '"x"', "{", '{"simulated": 5}', "caf\xe9"])
def test_a_damaged_note_is_refused(tmp_path, text):
    (tmp_path / MARKER).write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="choose another --out"), cohort(tmp_path, "covid", subjects=1, seed=0):
        pass


def test_what_a_killed_process_was_writing_is_no_other_file(tmp_path):
    (tmp_path / ".semiseg-01234567-1-01234567.tmp.json").touch()
    with cohort(tmp_path, "covid", subjects=1, seed=0) as needed:
        assert needed


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "scan.nii.gz").touch()
    with (
        pytest.raises(InputError, match="got a folder with other files, expected an empty folder"),
        cohort(tmp_path, "covid", subjects=1, seed=0),
    ):
        pass
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize("wrong", [{"subjects": 0}, {"seed": -1}])
def test_impossible_numbers_are_named(tmp_path, wrong):
    with (
        pytest.raises(UserError, match=str(next(iter(wrong.values())))),
        cohort(tmp_path / "new", "covid", **{"subjects": 1, "seed": 0, **wrong}),
    ):
        pass
    assert not (tmp_path / "new").exists()


def test_a_value_out_of_range_names_its_flag():
    with pytest.raises(UserError, match="--size: got 8, expected 32 to 1024"):
        check_range("--size", 8, 32, 1024)


def test_an_unknown_world_is_an_error_that_names_those_there_are(tmp_path):
    with pytest.raises(UserError, match=f"got 'liver', expected one of: {', '.join(RESOLUTION)}"):
        simulate_world("liver", tmp_path)


def test_a_resolution_of_another_world_is_refused(tmp_path):
    with pytest.raises(UserError, match="--size: got 64 for brats, expected no such setting there; set --spacing-mm"):
        simulate_world("brats", tmp_path, size=64)
    with pytest.raises(UserError, match=r"--spacing-mm: got 2\.0 for covid.*set --size"):
        simulate_world("covid", tmp_path, spacing_mm=2.0)
    assert not any(tmp_path.iterdir())
