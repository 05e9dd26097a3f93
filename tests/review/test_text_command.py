"""``saln labels`` on tables, as a person meets it: texts, sets, numbers, features of elsewhere."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from helpers.color_photos import listed
from PIL import Image
from review.test_multi_label import examples
from review.test_numeric_labels import linear, wrongly

WORDS = {
    "garden": "rose soil seeds water bloom leaf prune root shade tulip compost spade hedge fern",
    "music": "chord piano rhythm song choir violin tempo melody drum opera flute bass tune harp",
    "money": "bank loan tax price profit market share bond credit debt budget wage trade fund",
    "space": "orbit planet star comet rocket moon galaxy probe lunar crater nebula solar mars sun",
}
COMMON = "the a of and in it was is for on with that new old good time people day year some"


def topics(n=400, rate=0.2, seed=0):
    """Texts about four things, the given label of each, and which labels are wrong."""
    random = np.random.default_rng(seed)
    names = list(WORDS)
    true = random.integers(4, size=n)
    texts = []
    for topic in true:
        own = random.choice(WORDS[names[topic]].split(), 4)
        stray = random.choice(WORDS[random.choice(names)].split())
        words = [*own, *random.choice(COMMON.split(), 10), stray]
        texts.append(" ".join(random.permutation(words)))
    wrong = random.random(n) < rate
    given = np.where(wrong, (true + random.integers(1, 4, n)) % 4, true)
    return texts, [names[c] for c in given], [names[c] for c in true], wrong


def write_table(path, **columns):
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def test_texts_go_in_and_their_wrong_labels_come_out(run, tmp_path):
    texts, given, true, wrong = topics()
    write_table(tmp_path / "data.csv", body=texts, topic=given)
    columns = ("--text-column", "body", "--label-column", "topic")
    status, out, err = run("labels", "data.csv", *columns)
    assert status == 0, err
    rows = listed(tmp_path / "labels-data")
    assert len(rows) == 400
    first = [int(row["id"]) for row in rows[:50]]
    assert wrong[first].sum() >= 47
    assert np.mean([row["believed"] == true[int(row["id"])] for row in rows[:50]]) > 0.9
    doubted = {int(row["id"]) for row in rows if float(row["probability"]) < 0.5}
    assert len(doubted & set(np.flatnonzero(wrong))) > 0.8 * wrong.sum()
    assert f"{len(doubted)} of 400 labels look wrong" in out
    facts = json.loads((tmp_path / "labels-data" / "review.json").read_text())
    assert facts["dataset"] == f"csv:{tmp_path / 'data.csv'}"
    assert facts["columns"]["text"] == "body"
    assert (facts["task"], facts["backbone"]) == ("classes", "tfidf")
    assert facts["features_computed"] == 400
    status, out, _ = run("labels", "data.csv", *columns, "--json")  # from the cache
    assert (status, json.loads(out)["features_computed"]) == (0, 0)


def test_columns_that_were_guessed_are_said(run, tmp_path):
    texts, given, _, _ = topics(120)
    write_table(tmp_path / "data.csv", sentence=[*texts[1:], "  "], label=given)
    status, out, err = run("labels", "csv:data.csv")
    assert status == 0, err
    assert "columns  text = sentence, label = label" in out
    assert "1 no text; the first: 119 (no text)" in out


def test_an_encoder_of_transformers_reads_each_text_once(run, tmp_path):
    from helpers.small_models import save_text_encoder

    texts, given, _, _ = topics(200)
    words = sorted({word for text in texts for word in text.split()})
    save_text_encoder(tmp_path / "model", words)
    write_table(tmp_path / "data.csv", text=texts, label=given)
    arguments = ("labels", "data.csv", "--backbone", "hf:model", "--json")
    status, out, err = run(*arguments)
    assert status == 0, err
    facts = json.loads(out)
    assert (facts["backbone"], facts["features_computed"]) == ("hf:model", 200)
    assert len(listed(tmp_path / "labels-data")) == 200
    write_table(
        tmp_path / "data.csv", text=[*texts[50:], "a new one"], label=[*given[50:], "music"]
    )
    assert json.loads(run(*arguments)[1])["features_computed"] == 1


def test_a_table_of_paths_is_judged_by_its_images(run, tmp_path):
    random = np.random.default_rng(0)
    colors = {"blue": (20, 30, 200), "red": (210, 40, 30)}
    (tmp_path / "photos").mkdir()
    names, labels = [], []
    for number in range(60):
        color = list(colors)[number % 2]
        pixels = np.array(colors[color]) + random.normal(0, 25, (12, 12, 3))
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        picture.save(tmp_path / "photos" / f"{number}.png")
        names.append(f"photos/{number}.png")
        labels.append(color if number not in (4, 7) else list(colors)[1 - number % 2])
    write_table(tmp_path / "data.tsv.csv", file=[*names, "photos/none.png"], label=[*labels, "red"])
    small = ("--backbone", "pixels", "--feature-size", "8")
    status, _, err = run("labels", "data.tsv.csv", *small, "--image-column", "file")
    assert status == 0, err
    rows = {row["id"]: row for row in listed(tmp_path / "labels-data.tsv")}
    assert set(list(rows)[:2]) == {"photos/4.png", "photos/7.png"}  # the worst come first
    assert rows["photos/none.png"]["problem"].startswith("unreadable")


def test_a_data_set_of_hugging_face_is_one_of_texts_where_it_has_no_images(run, tmp_path):
    datasets = pytest.importorskip("datasets")
    texts, given, _, wrong = topics(200)
    table = datasets.Dataset.from_dict({"text": texts, "label": given})
    table.train_test_split(0.25, seed=0).save_to_disk(str(tmp_path / "set"))
    status, _, err = run("labels", "hf:set")
    assert status == 0, err
    rows = listed(tmp_path / "labels-set")
    assert {row["split"] for row in rows} == {"train", "test"}
    of = dict(zip(texts, wrong.tolist(), strict=True))
    loaded = datasets.load_from_disk(str(tmp_path / "set"))
    every = [*loaded["train"]["text"], *loaded["test"]["text"]]
    assert np.mean([of[every[int(row["id"])]] for row in rows[:20]]) > 0.8


def test_sets_of_labels_are_judged_class_by_class(run, tmp_path):
    rows, given, wrong = examples(n=300, classes=3, strength=2.0)
    names = np.array(["red", "green", "blue"])
    labels = ["|".join(names[row]) or "|" for row in given]
    np.save(tmp_path / "rows.npy", rows)
    write_table(tmp_path / "ids.csv", id=[f"x{i}" for i in range(300)], label=labels)
    status, _, err = run(
        *("labels", "--features", "rows.npy", "--ids", "ids.csv"),
        *("--task", "multi-label", "--separator", "|"),
    )
    assert status == 0, err
    found = listed(tmp_path / "labels-ids")
    first = [int(row["id"][1:]) for row in found[:30]]
    assert wrong.any(axis=1)[first].mean() > 0.9
    facts = json.loads((tmp_path / "labels-ids" / "review.json").read_text())
    assert (facts["task"], facts["separator"], facts["classes"]) == ("multi-label", "|", 3)


def test_numbers_are_judged_by_what_the_others_foretell(run, tmp_path):
    rows, numbers = linear(n=300)
    given, wrong = wrongly(numbers, 0.2, 0)
    np.save(tmp_path / "rows.npy", rows)
    write_table(tmp_path / "ids.csv", id=range(300), price=[f"{x:.3f}" for x in given])
    arguments = ("labels", "ids.csv", "--features", "rows.npy", "--task", "regression")
    status, _, err = run(*arguments)
    assert status == 2
    assert "give --label-column NAME, one of id, price" in err
    status, out, err = run(*arguments, "--label-column", "price")
    assert status == 0, err
    assert "300 labels\n" in out
    found = listed(tmp_path / "labels-ids")
    first = [int(row["id"]) for row in found[:20]]
    assert wrong[first].mean() > 0.9
    off = [abs(float(row["believed"]) - numbers[int(row["id"])]) for row in found]
    assert np.median(off) < 10


WRONG = {
    ("data.csv", "--text-column", "body"): "--text-column body: ",
    ("none.csv",): "DATASET none.csv is no file",
    ("data.csv", "--backbone", "resnet18"): "unknown text encoder 'resnet18'",
    ("digits", "--text-column", "a"): "--text-column a is for tables, and digits is none",
    ("digits", "--task", "regression"): "--task regression is for tables",
    ("data.csv", "--task", "boxes"): "--task boxes is not allowed",
    ("data.csv", "--separator", " "): "--separator ' ' is not allowed",
    ("--ids", "data.csv"): "give --features FILE too",
    ("digits", "--features", "rows.npy"): "needs the labels of its rows; give --ids FILE.csv",
    ("--features", "rows.npy", "--ids", "data.csv"): "has 4 rows and --features has 3",
    ("data.csv", "--features", "none.npy"): "--features none.npy is no file",
    ("boxes.json",): "save each box's crop as an image",
    (): "needs DATASET; give a folder",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_what_does_not_go_together_is_said_in_a_line(arguments, run, tmp_path):
    write_table(tmp_path / "data.csv", text=["a", "b", "c", "d"], label=[1, 2, 1, 2])
    np.save(tmp_path / "rows.npy", np.zeros((3, 2)))
    (tmp_path / "boxes.json").write_text('{"info": {},\n "images": [{"id": 1}]}')
    status, out, err = run("labels", *arguments)
    assert status == 2, err
    assert out == ""
    assert WRONG[arguments] in err.splitlines()[-1]
    assert err.count("saln: error") == 1
    assert not list(tmp_path.glob("labels-*"))
