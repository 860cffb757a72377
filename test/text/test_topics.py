from __future__ import annotations

from litevlm_ros.text.topics import MOST_TOPICS, Topics


def test_a_topic_keeps_its_object_until_many_others_have_come() -> None:
    topics = Topics[list[int]](list)
    kept, other = topics.take("front"), topics.take("back")
    kept.append(7)
    assert topics.take("front") is kept
    assert other == [], "each has its own"
    for number in range(MOST_TOPICS - 1):
        topics.take(number)
    assert topics.take("front") == [7], "it was used later than the other"
    assert topics.take("back") is not other
    for number in range(MOST_TOPICS):
        topics.take(number)
    assert topics.take("front") == []
