from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rosbags", reason="needs rosbags")

from rosbags.rosbag2 import CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores
from small_bags import START, TEXT, SmallBag

from litevlm_ros.bags.image_bag import BagError, ImageBag
from litevlm_ros.errors import ConfigError, ImageError

# rosbag2 does not compress messages in MCAP, which compresses its chunks.
KINDS = [
    (storage, compression)
    for storage in StoragePlugin
    for compression in (CompressionMode.NONE, CompressionMode.MESSAGE, CompressionMode.FILE)
    if (storage, compression) != (StoragePlugin.MCAP, CompressionMode.MESSAGE)
]


@pytest.mark.parametrize(("storage", "compression"), KINDS)
@pytest.mark.parametrize("distribution", [Stores.ROS2_HUMBLE, Stores.ROS2_JAZZY])
def test_images_of_every_kind_of_bag(
    tmp_path: Path, storage: StoragePlugin, distribution: Stores, compression: CompressionMode
) -> None:
    path = SmallBag(distribution).write(tmp_path / "bag", storage, compression=compression)
    with ImageBag(path) as bag:
        assert bag.image_topics == {"/front/image_raw": 4, "/back/image_raw/compressed": 4}
        frames = [frame for frame in bag.images(bag.choose([])) if frame]
    assert [frame.topic for frame in frames[:2]] == ["/front/image_raw", "/back/image_raw/compressed"]
    assert [frame.bag_time for frame in frames[::2]] == [START + 500_000_000 * index for index in range(4)]
    assert frames[2].stamp == (1_700_000_000, 400_000_000)
    assert frames[2].frame_id == "optical"
    for index, frame in enumerate(frames):
        assert frame.decode().shape == (24, 32, 3)
        assert abs(int(frame.decode()[0, 0, 0]) - 10 * (index // 2)) <= 2


def test_a_period_leaves_out_frames_of_each_topic_for_itself(tmp_path: Path) -> None:
    path = SmallBag().write(tmp_path / "bag", StoragePlugin.MCAP)
    with ImageBag(path / "bag.mcap") as bag:
        items = list(bag.images(["/front/image_raw", "/back/image_raw/compressed"], 1.0))
    assert [item is not None for item in items] == [True, True, False, False, True, True, False, False]


def test_topics_that_are_no_images_are_named(tmp_path: Path) -> None:
    with ImageBag(SmallBag().write(tmp_path / "bag", StoragePlugin.SQLITE3)) as bag:
        assert bag.choose(["/front/image_raw"] * 2) == ["/front/image_raw"]
        with pytest.raises(ConfigError, match=r"no images on /chatter; it has them on /front/image_raw, /back"):
            bag.choose(["/chatter"])
    types = SmallBag().types
    with Writer(tmp_path / "texts", version=8) as writer:
        writer.add_connection("/chatter", TEXT, typestore=types)
    with ImageBag(tmp_path / "texts") as bag, pytest.raises(ConfigError, match=r"only: /chatter \(std_msgs/msg/String"):
        bag.choose([])


def test_a_message_that_is_not_what_its_type_says(tmp_path: Path) -> None:
    types = SmallBag().types
    with Writer(tmp_path / "bag", version=8) as writer:
        connection = writer.add_connection("/front", "sensor_msgs/msg/Image", typestore=types)
        writer.write(connection, 5, b"\0\1\0\0\1\2\3")
    with ImageBag(tmp_path / "bag") as bag:
        (frame,) = bag.images(["/front"])
    assert frame is not None
    with pytest.raises(ImageError, match="not what its type says"):
        frame.decode()


def test_what_is_no_bag(tmp_path: Path) -> None:
    with pytest.raises(BagError, match=r"no metadata\.yaml"), ImageBag(tmp_path):
        pass
    with pytest.raises(BagError, match=r"no metadata\.yaml"), ImageBag(tmp_path / "nowhere"):
        pass


@pytest.mark.parametrize("storage", list(StoragePlugin))
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_a_truncated_bag_ends_with_an_explanation(tmp_path: Path, storage: StoragePlugin, share: float) -> None:
    path = SmallBag().write(tmp_path / "bag", storage, images=40)
    (file,) = (file for file in path.iterdir() if file.name != "metadata.yaml")
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])

    def read() -> None:
        with ImageBag(path) as bag:
            for _ in bag.images(["/front/image_raw"]):
                pass

    with pytest.raises(BagError, match=r"bag cannot be read: .*ros2 bag reindex"):
        read()


@pytest.mark.parametrize("metadata", ["", "rosbag2_bagfile_information:\n  version: 99\n", "a: [", "\0"])
def test_broken_metadata(tmp_path: Path, metadata: str) -> None:
    path = SmallBag().write(tmp_path / "bag", StoragePlugin.MCAP)
    (path / "metadata.yaml").write_text(metadata)
    with pytest.raises(BagError, match="cannot be read"), ImageBag(path):
        pass
