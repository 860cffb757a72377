from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rosbags", reason="needs rosbags")

from rosbags.rosbag2 import CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores
from small_bags import RAW, START, TEXT, SmallBag
from small_mcap import write_mcap

from litevlm_ros.bags.image_bag import ImageBag, RecordedImage
from litevlm_ros.bags.storage import BagError
from litevlm_ros.errors import ConfigError, ImageError
from litevlm_ros.images.message import RAW_TYPE
from litevlm_ros.images.sample_range import SampleRange

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
        with pytest.raises(ConfigError, match=r"no images on /chatter; it has them on /back/image_raw/comp.*, /front"):
            bag.choose(["/chatter"])


def messages(kind: str) -> list[tuple[str, int, Any]]:
    types = SmallBag().types.types
    return {
        "texts": [("/chatter", 5, types[TEXT](data="hello"))],
        "nothing": [],
    }[kind]


@pytest.mark.parametrize(
    ("kind", "told"),
    [("texts", r"only: /chatter \(std_msgs/msg/String\)"), ("nothing", "no other topics either: it is")],
)
@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_bags_without_images(tmp_path: Path, storage: StoragePlugin, kind: str, told: str) -> None:
    path = SmallBag().write_messages(tmp_path / "bag", messages(kind), storage)
    with ImageBag(path) as bag, pytest.raises(ConfigError, match=told):
        bag.choose([])


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_an_image_topic_on_which_nothing_came(tmp_path: Path, storage: StoragePlugin) -> None:
    path = SmallBag().write(tmp_path / "bag", storage, images=0)
    with ImageBag(path) as bag, pytest.raises(ConfigError, match="no image was recorded on them"):
        bag.choose([])


def test_messages_of_ros_1_in_mcap(tmp_path: Path) -> None:
    file = write_mcap(tmp_path / "a.mcap", [("/front", "sensor_msgs/Image", 5, b"1")], profile="ros1", encoding="ros1")
    with ImageBag(file) as bag, pytest.raises(ConfigError, match=r"only: /front \(sensor_msgs/Image, ros1\)\. .*ROS 1"):
        bag.choose([])


def test_one_of_raw_and_compressed(tmp_path: Path) -> None:
    small = SmallBag()
    pictures = [
        (topic, START, small.compressed(START, 0) if "compressed" in topic else small.raw(START, 0))
        for topic in ("/a/image_raw", "/a/image_raw/compressed", "/b/image_raw/compressed")
    ]
    with ImageBag(small.write_messages(tmp_path / "bag", pictures)) as bag:
        assert bag.choose([]) == ["/a/image_raw", "/b/image_raw/compressed"]
        assert bag.choose(["/a/image_raw/compressed"]) == ["/a/image_raw/compressed"]


@pytest.mark.parametrize("storage", list(StoragePlugin))
@pytest.mark.parametrize("period", [0.0, 1.0])
def test_images_with_one_recording_time(tmp_path: Path, storage: StoragePlugin, period: float) -> None:
    small = SmallBag()
    items = [("/a", START, small.raw(START, value)) for value in (10, 20)] + [("/b", START, small.raw(START, 30))]
    with ImageBag(small.write_messages(tmp_path / "bag", items, storage)) as bag:
        values = [frame and int(frame.decode()[0, 0, 0]) for frame in bag.images(["/a", "/b"], period)]
    assert values == ([10, 20, 30] if period == 0 else [10, None, 30])


def test_a_clock_that_was_set_back(tmp_path: Path) -> None:
    small = SmallBag()
    file = write_mcap(
        tmp_path / "a.mcap",
        [("/a", RAW, time * 10**9, small.serialized(small.raw(START, 0))) for time in (50, 51, 60, 1, 2, 20)],
        compression=None,
    )
    with ImageBag(file) as bag:
        assert [frame and frame.bag_time // 10**9 for frame in bag.images(["/a"], 5)] == [50, None, 60, 1, None, 20]


def test_stamps_that_are_zero(tmp_path: Path) -> None:
    small = SmallBag()
    zero = small.raw(10**8, 7)  # its stamp is 0.1 s before
    with ImageBag(small.write_messages(tmp_path / "bag", [("/a", START, zero), ("/a", START + 1, zero)])) as bag:
        assert [frame and frame.stamp for frame in bag.images(["/a"])] == [(0, 0), (0, 0)]


def test_copies_are_known_to_be_the_same_and_others_are_not(tmp_path: Path) -> None:
    path = SmallBag().write(tmp_path / "bag", StoragePlugin.MCAP)
    other = SmallBag().write_messages(tmp_path / "other", [("/front/image_raw", START, SmallBag().raw(START, 99))])
    identities = []
    for each in (path, path / "bag.mcap", other):
        with ImageBag(each) as bag:
            identities.append(bag.identity())
    assert identities[0] == identities[1] != identities[2]


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


@pytest.mark.parametrize("storage", list(StoragePlugin))
@pytest.mark.parametrize("share", [0.4, 0.8])
def test_a_truncated_bag_is_read_as_far_as_it_goes(tmp_path: Path, storage: StoragePlugin, share: float) -> None:
    path = SmallBag().write(tmp_path / "bag", storage, images=40)
    (file,) = (file for file in path.iterdir() if file.name != "metadata.yaml")
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    frames: list[Any] = []
    with ImageBag(path) as bag:
        assert bag.notes[0].startswith(file.name)
        with pytest.raises(BagError, match=r"as far as it goes: .*image_raw has \d+ of the 40 images .*--resume"):
            frames.extend(bag.images(["/front/image_raw"]))
    assert 40 * share - 12 < len(frames) < 40
    assert [frame.bag_time for frame in frames] == [START + 500_000_000 * index for index in range(len(frames))]


def test_fewer_images_than_promised(tmp_path: Path) -> None:
    path = SmallBag().write(tmp_path / "bag", StoragePlugin.MCAP)
    metadata = path / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("message_count: 4", "message_count: 60"))
    with ImageBag(path) as bag:
        assert bag.total(["/front/image_raw"]) == 60
        with pytest.raises(BagError, match="/front/image_raw has 4 of the 60 images that the index promises"):
            list(bag.images(["/front/image_raw"]))


def test_promises_of_which_nothing_can_be_read(tmp_path: Path) -> None:
    path = SmallBag().write(tmp_path / "bag", StoragePlugin.MCAP, images=40)
    (path / "bag.mcap").write_bytes((path / "bag.mcap").read_bytes()[:100])
    with ImageBag(path) as bag, pytest.raises(BagError, match=r"no image of .*bag can be read: bag\.mcap: it ends at"):
        bag.identity()


def test_the_most_images_of_a_topic(tmp_path: Path) -> None:
    with ImageBag(SmallBag().write(tmp_path / "bag", StoragePlugin.MCAP, images=40)) as bag:
        assert [bag.most_images("/front/image_raw", period) for period in (0, 0.1, 1, 1000)] == [40, 40, 20, 1]


def test_what_the_node_refuses_is_refused_and_a_topic_keeps_its_brightness() -> None:
    def recorded(encoding: str, data: bytes) -> RecordedImage:
        message = SimpleNamespace(
            __msgtype__=RAW_TYPE, encoding=encoding, width=2, height=1, step=8, data=data, is_bigendian=0
        )
        return RecordedImage("/front/image_raw", 0, (0, 0), "", message, samples)

    samples = SampleRange()
    with pytest.raises(ImageError, match="depth image"):
        recorded("16UC1", bytes(8)).decode()
    with pytest.raises(ImageError, match="its data are a JPEG"):
        recorded("rgb8", b"\xff\xd8\xff\xe0").decode()
    assert recorded("mono16", b"\xff\x0f\0\0\0\0\0\0").decode()[0, 0, 0] == 255
    assert recorded("mono16", b"\xff\0\0\0\0\0\0\0").decode()[0, 0, 0] == 15
