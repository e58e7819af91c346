"""Guardrails: every operator's rewrite of the sample passes; what breaks a posting fails by name."""

import numpy as np
import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from ilqljax.hiring.edits.operators import rewrite_posting
from ilqljax.hiring.guardrails import CHECKS, check_rewrite, is_damaged
from ilqljax.hiring.guardrails.facts import find_pay
from ilqljax.hiring.guardrails.lexicon import find_places, find_technologies
from ilqljax.hiring.guardrails.statements import find_statements
from ilqljax.hiring.guardrails.wording import LANGUAGES, detect_language
from ilqljax.hiring.market.sample import make_market
from ilqljax.hiring.postings.posting import INSTRUCTION, Posting, build_prompt

TEXT = (
    "Blue Oak needs a driven ward nurse in Leeds. You plan patient care and record charts. "
    "We pay 4,500 a month. You need 5 years of practice. See http://oak.example/jobs or write to us@oak.example."
)
POSTING = Posting("p", "Ward Nurse", TEXT, company="Blue Oak", location="Leeds, UK")


def find_failures(text, posting=POSTING):
    return {failure.check for failure in check_rewrite(posting, text, build_prompt(posting))}


def test_adjectives_that_say_the_same_are_neither_names_nor_inventions():
    text = "Blue Oak (Strong team) needs a smart, fun nurse. You plan patient care."
    posting = Posting("p", "Nurse", text, company="Blue Oak")
    honest = text.replace("Strong", "Solid").replace("smart, fun", "clever, enjoyable")
    assert find_failures(honest, posting) == set()
    other = text.replace("Strong", "Stony").replace("smart, fun", "famous, wealthy")
    assert {"name_invented", "sentence_invented"} <= find_failures(other, posting)


def test_original_passes():
    assert find_failures(TEXT) == set()


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("", "not_empty"),
        (" \n ... ", "not_empty"),
        (TEXT.replace("Blue Oak", "Red Oak"), "company_kept"),
        (TEXT.replace("ward nurse", "nurse"), "title_kept"),
        (TEXT.replace("Leeds", "York"), "location_kept"),
        (TEXT.replace("4,500", "5,400"), "numbers_kept"),
        (TEXT.replace("4,500", "5,400"), "pay_kept"),
        (TEXT.replace("a month", "a week"), "pay_kept"),
        (TEXT.replace("4,500", "$4,500"), "pay_kept"),
        (TEXT + " You lead twenty people.", "numbers_kept"),
        (TEXT + " We also hire in Berlin.", "places_kept"),
        (TEXT + " You know Python.", "technologies_kept"),
        (TEXT + " Initech is hiring.", "name_invented"),
        (TEXT + " Join the team at Initech.", "name_invented"),
        (TEXT + " You hold a diploma.", "sentence_invented"),
        (TEXT + " Visa sponsorship is available.", "statements_kept"),
        (TEXT + " Remote is fine.", "conditions_kept"),
        (TEXT + " Title: Ward Nurse", "template_leak"),
        (TEXT + " Ward Nurse Company Blue Oak.", "template_leak"),
        (TEXT.upper(), "copying"),
        (TEXT + " Wir suchen eine Person, die mit uns in einem Team arbeitet.", "language_kept"),
        (TEXT + " We pay 9 more.", "numbers_kept"),
        (TEXT.replace("http://oak.example/jobs", "our page"), "links_kept"),
        (TEXT + " See http://other.example.", "links_kept"),
        (TEXT + " </a>", "template_leak"),
        (TEXT + f" {INSTRUCTION}", "template_leak"),
        (TEXT + " Requirements: charts", "template_leak"),
        (TEXT + " very very very", "repetition"),
        (TEXT + " You plan patient care." * 4, "repetition"),
        ("Blue Oak needs a ward nurse in Leeds.", "length"),
        (TEXT * 3, "length"),
    ],
)
def test_broken_rewrite_fails_by_name(text, check):
    assert check in find_failures(text)


def test_years_of_experience_may_go():
    assert find_failures(TEXT.replace(" You need 5 years of practice.", "")) == set()


def test_fact_that_the_original_does_not_mention_is_not_asked_for():
    posting = Posting("p", "Ward Nurse", "We need a careful person for patient care and charts.", "Blue Oak", "Leeds")
    assert find_failures("We need a warm person for patient care and charts.", posting) == set()


def test_inclusive_sentence_passes_and_gibberish_fails():
    """DOMAIN.md 2.12: an unbounded quality score put these two the wrong way round."""
    assert find_failures(f"{TEXT} We welcome people of every background.") == set()
    rng = np.random.default_rng(0)
    letters = ["".join(rng.choice(list("abcdefghijklmnop"), size=6)) for _ in range(len(TEXT.split()))]
    assert "incoherent" in find_failures(" ".join(letters))


def test_shuffled_words_fail():
    rng = np.random.default_rng(0)
    failed = []
    for posting in make_market(n_postings=100, n_candidates=1)[0]:
        failed.append("incoherent" in find_failures(" ".join(rng.permutation(posting.description.split())), posting))
    assert np.mean(failed) > 0.98


def test_another_postings_text_fails():
    first, second = make_market(n_postings=2, n_candidates=1)[0]
    assert find_failures(second.description, first)


@pytest.mark.slow
def test_every_operator_passes_on_the_whole_sample():
    for posting in make_market(n_candidates=1)[0]:
        for operator, text in rewrite_posting(posting):
            assert check_rewrite(posting, text, build_prompt(posting)) == [], (operator, text)


def test_span_marks_the_offending_part():
    text = TEXT + " </a>"
    (failure,) = check_rewrite(POSTING, text, build_prompt(POSTING))
    assert text[slice(*failure.span)] == "</a>" and "</a>" in failure.reason


def test_failures_carry_the_name_of_their_check():
    names = {failure.check for failure in check_rewrite(POSTING, "zzz </s> 99 " * 40, build_prompt(POSTING))}
    assert names <= set(CHECKS) and len(names) > 4


FULL = Posting(
    "f",
    "Web Developer",
    "Blue Oak needs a web developer in Leeds. You know Python and node.js. We pay $100-120k a year. "
    "We are an equal opportunity employer. We cannot sponsor visas. Full-time, no remote.",
    company="Blue Oak",
    requirements="Python, node.js, 5 years of practice",
)


@pytest.mark.parametrize(
    ("old", "new", "check"),
    [
        ("$100-120k", "$100-130k", "pay_kept"),
        ("Python and node.js", "Python", "technologies_kept"),
        ("Python and node.js", "Python", "requirements_kept"),
        ("node.js", "Ruby", "technologies_kept"),
        ("Leeds", "York", "places_kept"),
        (" We are an equal opportunity employer.", "", "statements_kept"),
        ("cannot sponsor", "gladly sponsor", "statements_kept"),
        ("no remote", "remote", "conditions_kept"),
        ("Full-time", "Part-time", "conditions_kept"),
    ],
)
def test_changed_fact_fails_by_name(old, new, check):
    assert find_failures(FULL.description, FULL) == set()
    assert old in FULL.description and check in find_failures(FULL.description.replace(old, new), FULL)


def test_what_only_the_prompt_knows_is_not_invented():
    posting = Posting("p", "Ward Nurse", TEXT, company="Blue Oak", location="Leeds", requirements="SQL", remote=True)
    assert find_failures(f"{TEXT} SQL is good to have. Remote is fine.", posting) == set()


def test_another_spelling_of_a_technology_or_place_is_the_same():
    assert find_failures(FULL.description.replace("node.js", "NodeJS"), FULL) == {"requirements_kept"}
    assert set(find_technologies("Postgres, golang and C++. Go to our site.")) == {"postgres", "go", "c++"}
    assert set(find_places("New York, NYC or San Francisco; not york")) == {"new york", "san francisco"}


def test_places_of_the_world_are_found_whatever_their_accents():
    assert set(find_places("Kraków or Krakow, Portland (Oregon), St. Louis, Costa Rica, Köln")) == {
        *("krakow", "portland", "oregon", "st. louis", "costa rica", "cologne")
    }


def test_city_that_is_an_ordinary_word_is_no_place():
    """All are cities of more than 100,000 people."""
    assert find_places("Reading this? Nice! Mobile apps. Man or Van. Split the Sale. The Hub. Ajax in Orange.") == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("$100-120k a year", {("$", "100k", "year", ""), ("$", "120k", "year", "")}),
        ("60.000 EUR", {("€", "60.000", "", "")}),
        ("€50k to €60k", {("€", "50k", "", ""), ("€", "60k", "", "")}),
        ("4,500 a month", {("", "4,500", "month", "")}),
        ("12 people, 5 years", set()),
    ],
)
def test_pay_is_found_with_currency_scale_and_period(text, found):
    assert set(find_pay(text)) == found


def test_statements_have_a_sign():
    text = "No visa sponsorship. Background checks are done. Remote is fine, relocation is not offered."
    assert set(find_statements(text, "statements_kept")) == {("visa sponsorship", False), ("background check", True)}
    assert set(find_statements(text, "conditions_kept")) == {("remote work", True), ("work on site", False)}


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("English", "We are looking for a nurse who can work with our team in the clinic."),
        ("German", "Wir suchen eine Pflegekraft für unser Team in Bonn, die gern mit Menschen arbeitet."),
        ("French", "Nous cherchons une personne pour notre équipe à Lyon, avec le goût du travail dans un hôpital."),
        ("Spanish", "Buscamos una persona para nuestro equipo en Madrid que trabaje con los pacientes."),
        ("Portuguese", "A nossa equipa no Porto procura uma pessoa para o hospital, com ou sem experiência."),
        ("Italian", "Cerchiamo una persona per il nostro ospedale di Torino che lavori con i pazienti della città."),
        ("Dutch", "Wij zoeken een verpleger voor ons team in Utrecht die met de patiënten van het huis werkt."),
        ("Swedish", "Vi söker en sjuksköterska till vår klinik i Malmö som har erfarenhet av det och är trygg."),
        ("Polish", "Szukamy osoby do pracy w naszym zespole, która nie boi się nowych zadań i jest dokładna."),
        ("Danish", "Vi søger en sygeplejerske til vores afdeling, som har lyst til at lære noget nyt."),
        ("Russian", "Мы ищем медсестру, которая хочет работать в нашей клинике."),
        ("Chinese", "我们正在寻找一名能够与团队合作的软件工程师"),
        ("German", "Gute Deutschkenntnisse sind von Vorteil."),  # without a word of the commonest
        ("", "Python, Java, SQL"),
        ("", "Berlin | München | Köln | Hamburg | Stuttgart"),
        ("", "Hallo zusammen"),
        ("", "- e) http://a.example/e - e) o - e) a"),
    ],
)
def test_language_of_a_sentence_is_told(language, text):
    assert detect_language(text) == language


def test_every_language_is_one_the_model_knows():
    known = LanguageIdentifier.from_model_file(MODEL_FILE).labels
    assert set(LANGUAGES) <= set(known) and len(set(LANGUAGES.values())) == len(LANGUAGES)


def test_posting_in_another_language_may_stay_in_it():
    posting = Posting("g", "", "Wir suchen eine Pflegekraft für unser Team in Bonn. Du bist nicht allein.")
    assert "language_kept" not in find_failures(posting.description + " Wir sind ein Team für dich.", posting)
    english = "We are looking for a nurse in Bonn who can work with our team and is not alone."
    assert "language_kept" in find_failures(english, posting)


def test_copy_is_not_damage_and_the_original_to_the_letter_passes():
    failures = check_rewrite(POSTING, TEXT.rstrip(".") + "!", build_prompt(POSTING))
    assert [(f.check, f.severity) for f in failures] == [("copying", "copy")]
    assert not is_damaged(failures)
    assert is_damaged(check_rewrite(POSTING, TEXT.replace("Leeds", "York"), build_prompt(POSTING)))
    assert find_failures("  ".join(TEXT.split())) == set()
