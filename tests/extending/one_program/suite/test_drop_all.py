from kernel_matrix.guest.bpf.loaders import Loader
from kernel_matrix.guest.bpf.steps import object_path

XDP_DROP = 1


def test_every_frame_is_dropped_and_counted(loader: Loader) -> None:
    with loader.opened(object_path("drop_all")) as obj:
        assert [obj.test_run("drop_all", bytes(64))[0] for _ in range(3)] == [XDP_DROP] * 3
        assert obj.map("drops").get(0) == (3).to_bytes(8, "little")
