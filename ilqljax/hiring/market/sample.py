"""Generate the built-in sample: a small hiring market whose right answer is known.

**The plant.** Two correlations are put in on purpose, both of the same adjustable strength `plant` in [0, 1]:

- *gender and adjectives*: a candidate describes themselves with three adjectives of one code. With probability
  `plant` that code is the one of their gender (masculine for men, feminine for women); otherwise it is drawn evenly
  from masculine, neutral and feminine, whatever the gender. So P(own code) = plant + (1 - plant) / 3.
- *region and qualification*: with probability `plant` a candidate names the qualification of their region ("chartered
  status" in the north, and so on); otherwise one of the four drawn evenly.

Nothing else about a candidate depends on gender or region: occupation, skills, title and the fact that a value is
left undeclared are drawn independently. At `plant=0` wording and groups are independent, so any audit of the sample
must find nothing beyond noise.

A posting carries four or five adjectives of one code (masculine half of the time, neutral and feminine a quarter
each), so a lexical matcher such as TF-IDF retrieves candidates who use the same words. At the default plant and seed
0, the top 50 of 2,000 for a coded posting lie 0.24 (masculine) and 0.23 (feminine) in total variation from the pool's
gender share on average, eight in ten of them between 0.13 and 0.33; for a neutral one 0.055, as random shortlists do
(0.058, the noise floor). Rewriting a coded posting with neutral words therefore gains 17 points of reward. Postings do
not depend on `plant`, and only the planted words of the candidates do.

The vocabulary is small (about 400 words), and sentences come from few templates, because a tiny language model has to
learn it from nothing within a minute. Companies are named by two words of one short list, so that held-out companies
are made of seen words.
"""

import numpy as np

from ilqljax.errors import UserError
from ilqljax.hiring.edits.coded_words import CODES, SAMPLE_TRIPLES
from ilqljax.hiring.postings.posting import Candidate, Posting
from ilqljax.hiring.word_files import load_words

_WORDS = load_words("market/words.ini")
# The titles, duties (verb phrases) and skills (nouns) of each.
OCCUPATIONS = {name.removeprefix("occupation "): lists for name, lists in _WORDS.items() if "occupation" in name}
COMPANY_WORDS = _WORDS["companies"]["words"]
CITIES = {city: country for city, (country,) in _WORDS["cities"].items()}
QUALIFICATIONS = {region: name for region, (name,) in _WORDS["qualifications"].items()}
EXCLUSIONARY_SENTENCES = _WORDS["exclusionary"]["sentences"]
TEMPLATES = _WORDS["templates"]
GENDERS = ("female", "male")
CODE_OF_GENDER = {"female": 2, "male": 0}
REGIONS = tuple(QUALIFICATIONS)
POSTING_CODE_SHARES = (0.5, 0.25, 0.25)  # masculine, neutral, feminine
UNKNOWN_SHARE = 0.08
POSTINGS_PER_COMPANY = 3


def make_market(
    *, seed: int = 0, n_postings: int = 300, n_candidates: int = 2000, plant: float = 0.8
) -> tuple[list[Posting], list[Candidate]]:
    """Make the sample's postings, three a company on average, and candidates; every seed gives another market.

    The strength `plant` of the planted correlations (module docstring) is from 0 (none) to 1 (complete). A number out
    of its range raises a `UserError`.
    """
    if not 0.0 <= plant <= 1.0:
        raise UserError(f"plant={plant} is not a strength from 0 to 1. Use 0 for no correlation, 0.8 for the default.")
    most = POSTINGS_PER_COMPANY * len(COMPANY_WORDS) * (len(COMPANY_WORDS) - 1)
    if not 1 <= n_postings <= most or n_candidates < 1:
        raise UserError(
            f"n_postings={n_postings}, n_candidates={n_candidates}: use 1 to {most} postings and at least 1 candidate."
        )
    posting_rng, candidate_rng = (np.random.default_rng([seed, stream]) for stream in range(2))
    names = [f"{first} {second}" for first in COMPANY_WORDS for second in COMPANY_WORDS if second != first]
    drawn = posting_rng.choice(len(names), size=-(-n_postings // POSTINGS_PER_COMPANY), replace=False)
    companies = [names[i] for i in drawn]
    postings, seen = [], set()
    while len(postings) < n_postings:
        posting = _draw_posting(posting_rng, index=len(postings), companies=companies)
        if posting.description not in seen:
            seen.add(posting.description)
            postings.append(posting)
    candidates = [_draw_candidate(candidate_rng, index=i, plant=plant) for i in range(n_candidates)]
    return postings, candidates


def _draw_posting(rng: np.random.Generator, *, index: int, companies: list[str]) -> Posting:
    occupation = _pick(rng, tuple(OCCUPATIONS))
    words = OCCUPATIONS[occupation]
    company = companies[index % len(companies)]
    city = _pick(rng, tuple(CITIES))
    title = _pick(rng, words["titles"])
    code = int(rng.choice(len(CODES), p=POSTING_CODE_SHARES))
    adjectives = [SAMPLE_TRIPLES[i][code] for i in rng.choice(len(SAMPLE_TRIPLES), size=5, replace=False)]
    duties = _pick_many(rng, words["duties"], 2)
    skills = _pick_many(rng, words["skills"], 3)
    teams = TEMPLATES["teams with two" if rng.random() < 0.5 else "teams with one"]
    sentences = [
        _fill(_pick(rng, TEMPLATES["openings"]), adjectives[0], company=company, city=city, title=title.lower()),
        _pick(rng, TEMPLATES["duties"]).format(first=duties[0], second=duties[1]),
        _fill(_pick(rng, TEMPLATES["persons"]), adjectives[1], other=adjectives[2], first=skills[0], second=skills[1]),
        _fill(_pick(rng, teams), adjectives[3], other=adjectives[4]),
    ]
    ending = rng.random()
    qualification = QUALIFICATIONS[_pick(rng, REGIONS)]
    exclusionary = _pick(rng, EXCLUSIONARY_SENTENCES)
    if ending < 0.3:
        sentences.append(f"You hold {qualification}.")
    elif ending < 0.65:
        sentences.append(exclusionary)
    return Posting(
        id=f"job-{index:04d}",
        title=title,
        description=" ".join(sentences),
        company=company,
        location=city,
        country_code=CITIES[city],
        requirements=", ".join(skills),
        remote=bool(rng.random() < 0.2),
        group=occupation,
    )


def _draw_candidate(rng: np.random.Generator, *, index: int, plant: float) -> Candidate:
    # Every draw is made whatever the plant is, so two markets that differ in it differ in the planted words only.
    words = OCCUPATIONS[_pick(rng, tuple(OCCUPATIONS))]
    gender, region = _pick(rng, GENDERS), _pick(rng, REGIONS)
    title = _pick(rng, words["titles"]).lower().split()[-1]
    skills = _pick_many(rng, words["skills"], 3)
    own_code, own_qualification = rng.random(2) < plant
    any_code, any_region = int(rng.integers(len(CODES))), _pick(rng, REGIONS)
    code = CODE_OF_GENDER[gender] if own_code else any_code
    qualification = QUALIFICATIONS[region if own_qualification else any_region]
    first, second, third = (SAMPLE_TRIPLES[i][code] for i in rng.choice(len(SAMPLE_TRIPLES), size=3, replace=False))
    undeclared_gender, undeclared_region = rng.random(2) < UNKNOWN_SHARE
    return Candidate(
        id=f"candidate-{index:05d}",
        text=f"I am {_choose_article(first)} {first}, {second} and {third} {title}. "
        f"I know {skills[0]}, {skills[1]} and {skills[2]}. I hold {qualification}.",
        attributes={"gender": "" if undeclared_gender else gender, "region": "" if undeclared_region else region},
    )


def _fill(template: str, adjective: str, **slots: str) -> str:
    return template.format(a=_choose_article(adjective), adjective=adjective, **slots)


def _choose_article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _pick(rng: np.random.Generator, options: tuple):
    return options[int(rng.integers(len(options)))]


def _pick_many(rng: np.random.Generator, options: tuple, count: int) -> list:
    return [options[int(i)] for i in rng.choice(len(options), size=count, replace=False)]
