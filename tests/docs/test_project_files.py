"""What sites read of the project: how to cite it, forms for issues, security."""

import re

import yaml

import mrcnn_tf
from tests.docs import pages

ROOT = pages.ROOT


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    required = {"cff-version", "message", "title", "authors"}
    assert required <= cited.keys()
    assert cited["version"] == mrcnn_tf.__version__
    assert cited["license"] == "Apache-2.0"
    (paper,) = cited["references"]
    assert "1703.06870" in paper["identifiers"][0]["value"]
    for person in paper["authors"]:
        assert person.keys() == {"family-names", "given-names"}


def test_forms_ask_for_what_the_command_prints():
    forms = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    named = [form for form in forms if form.name != "config.yml"]
    assert len(named) == 3
    for form in named:
        content = yaml.safe_load(form.read_text("utf-8"))
        assert content.keys() == {"name", "description", "body"}, form
        kinds = {"markdown", "textarea", "checkboxes"}
        assert {field["type"] for field in content["body"]} <= kinds
        fields = {field["id"]: field for field in content["body"] if "id" in field}
        assert len(fields) == sum(field["type"] != "markdown" for field in content["body"])
        assert "python -m mrcnn_tf.env" in fields["env"]["attributes"]["label"]


def test_every_kind_of_weight_file_is_said_to_be_trusted_or_not():
    """SECURITY.md has all that `convert_weights` reads."""
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    source = (ROOT / "mrcnn_tf/weights/files.py").read_text("utf-8")
    readers = source[source.index("_READERS: dict") : source.index("_WRITERS: dict")]
    endings = re.findall(r'"(\.\w+)"', readers)
    assert len(endings) >= 5
    for ending in endings:
        assert f"`{ending}`" in text, ending


def test_the_readme_fits_three_screens():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 120
