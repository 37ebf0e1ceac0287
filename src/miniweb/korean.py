"""Korean particles and the chat lines of the miniweb."""

from typing import NamedTuple

from miniweb.world import Person, Verb, Word


def has_final_consonant(word: str) -> bool:
    """Say whether the last syllable of a Hangul word closes on a consonant.

    Syllables are numbered from U+AC00 in runs of 28, of which the first has no final consonant.
    """
    return (ord(word[-1]) - 0xAC00) % 28 != 0


def topic(word: str) -> str:
    """Mark the topic of a sentence: 은 after a consonant, 는 after a vowel."""
    return word + ("은" if has_final_consonant(word) else "는")


def direct_object(word: str) -> str:
    """Mark the object of a sentence: 을 after a consonant, 를 after a vowel."""
    return word + ("을" if has_final_consonant(word) else "를")


def event_in_korean(person: Person, verb: Verb, adjective: Word, thing: Word) -> str:
    """Say who did what, politely: 톰은 빨간 사과를 샀어요."""
    return f"{topic(person.korean)} {adjective.korean} {direct_object(thing.korean)} {verb.korean}"


SAYINGS = (
    Word("how are you", "어떻게 지내세요"),
    Word("thank you", "감사합니다"),
    Word("hello", "안녕하세요"),
    Word("I am sorry", "죄송합니다"),
    Word("nice to meet you", "만나서 반가워요"),
    Word("see you tomorrow", "내일 봐요"),
    Word("good night", "안녕히 주무세요"),
    Word("I am hungry", "배고파요"),
)

CHAT_TIMES = ("어제", "아까", "주말에", "지난주에")

# What happened, by the word that it makes twice as likely to come next.
CHAT_EVENTS = {
    "거기": ("카페 갔었어", "시장 갔었어", "바다 갔었어", "도서관 갔었어"),
    "걔": ("민수 만났어", "지영이 만났어", "수진이 만났어", "준호 만났어"),
    "그거": ("가방 샀어", "의자 샀어", "노트북 샀어", "운동화 샀어"),
    "그때": ("비 맞았어", "길 잃어버렸어", "기차 놓쳤어", "버스 놓쳤어"),
}

# What one says of it; the last remark fits a place, a person and a thing alike.
CHAT_REMARKS = {
    "거기": (
        "사람 많더라",
        "주차하기 힘들더라",
        "분위기 좋더라",
        "좀 시끄럽더라",
        "진짜 괜찮더라",
    ),
    "걔": ("요즘 바쁘대", "키 많이 컸더라", "곧 이사 간대", "또 늦었더라", "진짜 괜찮더라"),
    "그거": (
        "생각보다 비싸더라",
        "금방 다 팔렸대",
        "요즘 할인하더라",
        "인터넷에서도 팔더라",
        "진짜 괜찮더라",
    ),
    "그때": ("너무 추웠어", "우산도 없었어", "배고파 죽는 줄 알았어", "진짜 졸렸어"),
}


class ChatLine(NamedTuple):
    """A line of chat: `before` alone leaves `word` open, `after` mostly settles it."""

    before: str
    word: str
    after: str

    def __str__(self) -> str:
        """Write the line."""
        return " ".join(self)

    @property
    def weight(self) -> int:
        """How often the line is written, against the others with the same `before`."""
        expected = any(self.before.endswith(event) for event in CHAT_EVENTS[self.word])
        return (2 if expected else 1) * 20 // len(CHAT_REMARKS[self.word])


CHAT_LINES = {
    f"{time} {event}": tuple(
        ChatLine(f"{time} {event}", word, remark)
        for word, remarks in CHAT_REMARKS.items()
        for remark in remarks
    )
    for time in CHAT_TIMES
    for events in CHAT_EVENTS.values()
    for event in events
}
