"""The words of the miniweb, and which of their combinations are held out."""

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import product
from typing import NamedTuple

from miniweb.facts import COUNTRIES, Country


class Person(NamedTuple):
    """A name, its Korean spelling, and the pronoun of the person."""

    name: str
    korean: str
    pronoun: str


class Word(NamedTuple):
    """An English word and its Korean."""

    english: str
    korean: str


class Verb(NamedTuple):
    """A verb's two English forms, its polite Korean past, and the mood that it leaves."""

    base: str
    past: str
    korean: str
    mood: str


def _rows(text: str) -> list[list[str]]:
    return [row.split() for row in text.strip().splitlines()]


PEOPLE = tuple(
    Person(*row)
    for row in _rows("""
Tom 톰 he
Anna 안나 she
Ben 벤 he
Lucy 루시 she
Max 맥스 he
Emma 에마 she
Sam 샘 he
Julia 줄리아 she
Leo 레오 he
Mina 미나 she
Jack 잭 he
Sofia 소피아 she
Peter 피터 he
Clara 클라라 she
David 데이비드 he
Nora 노라 she
Oscar 오스카 he
Helen 헬렌 she
Paul 폴 he
Maria 마리아 she
Daniel 대니얼 he
Alice 앨리스 she
Felix 펠릭스 he
Rosa 로사 she
Henry 헨리 he
Laura 로라 she
Simon 사이먼 he
Eva 에바 she
Oliver 올리버 he
Susan 수전 she
Victor 빅터 he
Karen 캐런 she
Adam 애덤 he
Linda 린다 she
Martin 마틴 he
Sara 사라 she
Robert 로버트 he
Diana 다이애나 she
Hugo 휴고 he
Ellen 엘런 she
""")
)

THINGS = tuple(
    Word(*row)
    for row in _rows("""
hat 모자
book 책
apple 사과
ball 공
cup 컵
bag 가방
chair 의자
clock 시계
box 상자
lamp 램프
key 열쇠
doll 인형
umbrella 우산
ring 반지
flower 꽃
pencil 연필
mirror 거울
blanket 담요
basket 바구니
candle 양초
guitar 기타
camera 카메라
table 탁자
letter 편지
map 지도
knife 칼
spoon 숟가락
button 단추
bottle 병
picture 그림
radio 라디오
drum 북
scarf 목도리
coat 외투
wallet 지갑
bicycle 자전거
newspaper 신문
plate 접시
pillow 베개
comb 빗
towel 수건
ticket 표
eraser 지우개
violin 바이올린
""")
)

ADJECTIVES = tuple(
    Word(*row)
    for row in _rows("""
red 빨간
blue 파란
big 큰
small 작은
old 오래된
yellow 노란
white 하얀
black 까만
pretty 예쁜
heavy 무거운
strange 이상한
expensive 비싼
cheap 싼
dirty 더러운
long 긴
shiny 반짝이는
""")
)

VERBS = tuple(
    Verb(*row)
    for row in _rows("""
buy bought 샀어요 good
find found 찾았어요 good
lose lost 잃어버렸어요 bad
draw drew 그렸어요 good
see saw 봤어요 good
sell sold 팔았어요 bad
hide hid 숨겼어요 bad
drop dropped 떨어뜨렸어요 bad
fix fixed 고쳤어요 good
borrow borrowed 빌렸어요 good
choose chose 골랐어요 good
touch touched 만졌어요 bad
order ordered 주문했어요 good
wrap wrapped 포장했어요 good
move moved 옮겼어요 bad
wipe wiped 닦았어요 bad
""")
)

PLACES = tuple(
    Word(*row)
    for row in _rows("""
park 공원
market 시장
school 학교
library 도서관
station 역
beach 해변
museum 박물관
zoo 동물원
cafe 카페
hospital 병원
airport 공항
bakery 빵집
theater 극장
office 사무실
farm 농장
hotel 호텔
pool 수영장
temple 절
castle 성
stadium 경기장
""")
)


def is_held_out(kind: str, *words: str) -> bool:
    """Say whether a combination of words never occurs: one in four, of questions one in two.

    The rule is the first byte of the words' SHA-256, so it is the same on every machine and in
    every world.
    """
    first = sha256(" ".join((kind, *words)).encode()).digest()[0]
    return first % (2 if kind == "question" else 4) == 0


@dataclass(frozen=True)
class World:
    """How much of the vocabulary is in use; sizes count from the start of each table.

    `attributes` are the facts told of a country (fields of `Country`); `n_events` and
    `n_questions` are the most events and questions that a passage has; with `retells`, half the
    stories hold a second thing and end on the name of the first, and questions are asked of them.
    """

    n_people: int = 10
    n_things: int = 16
    n_adjectives: int = 8
    n_verbs: int = 6
    n_places: int = 8
    n_countries: int = 32
    attributes: tuple[str, ...] = ("capital", "continent")
    n_events: int = 3
    n_questions: int = 3
    retells: bool = False

    def __post_init__(self) -> None:
        for name, table in (
            ("n_people", PEOPLE),
            ("n_things", THINGS),
            ("n_adjectives", ADJECTIVES),
            ("n_verbs", VERBS),
            ("n_places", PLACES),
            ("n_countries", COUNTRIES),
        ):
            if not 1 <= getattr(self, name) <= len(table):
                raise ValueError(f"{name} must be from 1 to {len(table)}")
        if not 1 <= self.n_events <= min(self.n_people - 1, self.n_things, 5):
            raise ValueError("n_events must be from 1 to 5, below n_people and at most n_things")
        if not 1 <= self.n_questions <= 5:
            raise ValueError("n_questions must be from 1 to 5")
        unknown = set(self.attributes) - set(Country._fields[2:])
        if unknown or not self.attributes:
            raise ValueError(f"attributes must be some of {Country._fields[2:]}")

    @cached_property
    def people(self) -> tuple[Person, ...]:
        """The people of this world."""
        return PEOPLE[: self.n_people]

    @cached_property
    def things(self) -> tuple[Word, ...]:
        """The things that people buy, find, lose."""
        return THINGS[: self.n_things]

    @cached_property
    def adjectives(self) -> tuple[Word, ...]:
        """What things are like."""
        return ADJECTIVES[: self.n_adjectives]

    @cached_property
    def verbs(self) -> tuple[Verb, ...]:
        """What people do with things."""
        return VERBS[: self.n_verbs]

    @cached_property
    def places(self) -> tuple[Word, ...]:
        """Where it happens."""
        return PLACES[: self.n_places]

    @cached_property
    def countries(self) -> tuple[Country, ...]:
        """The countries that pages tell of."""
        return COUNTRIES[: self.n_countries]

    @cached_property
    def facts(self) -> tuple[tuple[Country, str], ...]:
        """Every country with every attribute that is known of it."""
        pairs = product(self.countries, self.attributes)
        return tuple((country, name) for country, name in pairs if getattr(country, name))


SMALL = World()
MEDIUM = World(
    n_people=20,
    n_things=24,
    n_adjectives=10,
    n_verbs=8,
    n_places=12,
    n_countries=len(COUNTRIES),
    attributes=("capital", "continent", "currency"),
    n_questions=5,
    retells=True,
)
LARGE = World(
    n_people=len(PEOPLE),
    n_things=len(THINGS),
    n_adjectives=len(ADJECTIVES),
    n_verbs=len(VERBS),
    n_places=len(PLACES),
    n_countries=len(COUNTRIES),
    attributes=("capital", "continent", "city", "currency", "language"),
    n_events=4,
)
