from hypothesis import given
from hypothesis import strategies as st

from tts.tuning.devices import share, visible_devices


def test_the_environment_says_which_devices_there_are(tmp_path):
    for number in range(3):
        (tmp_path / f"0000:0{number}:00.0").mkdir()

    assert visible_devices({"CUDA_VISIBLE_DEVICES": "2, GPU-5d"}, tmp_path) == ("2", "GPU-5d")
    assert visible_devices({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == ()


def test_without_it_the_driver_does(tmp_path):
    for number in range(3):
        (tmp_path / f"0000:0{number}:00.0").mkdir()

    assert visible_devices({}, tmp_path) == ("0", "1", "2")
    assert visible_devices({}, tmp_path / "no driver") == ()


@given(st.integers(1, 16), st.integers(1, 16), st.integers(1, 4))
def test_no_two_workers_share_a_device_while_there_are_enough(count, workers, each):
    devices = tuple(map(str, range(count)))

    shares = [share(devices, worker, each) for worker in range(workers)]

    if each > count:
        assert set(shares) == {devices}
    else:
        assert all(len(one) == each for one in shares)
        enough = shares[: count // each]
        assert len({device for one in enough for device in one}) == each * len(enough)
        times = [sum(device in one for one in shares) for device in devices[: count // each * each]]
        assert max(times) - min(times) <= 1
