"""The few facts that `--help` does not print in a form to be read: each with where it stands in llama.cpp.

They hold for every build that has the flag in question. Where the source of a build is at hand, it is asked instead,
and tests/catalogue compares the two for a build of which both are there.
"""

__all__ = [
    "APPENDING",
    "CANONICAL",
    "FLOATS",
    "LIST_HINTS",
    "NO_EFFECT",
    "NUMBER_HINTS",
    "PATH_HINTS",
    "REPLACEMENTS",
    "SWITCH_WORDS",
]

CANONICAL = frozenset(
    {
        "--ctx-checkpoints",
        "--draft-max",
        "--draft-min",
        "--help",
        "--ui",
        "--ui-config",
        "--ui-config-file",
        "--ui-mcp-proxy",
        "--verbose",
    }
)
"""The canonical spelling is the last long one, which is how llama.cpp orders them, except for these and for --spec-…,
which came later and stand first."""

# common/arg.cpp: handlers with std::stof or std::stod
FLOATS = frozenset(
    {
        "--adaptive-decay",
        "--adaptive-target",
        "--defrag-thold",
        "--dry-base",
        "--dry-multiplier",
        "--dynatemp-exp",
        "--dynatemp-range",
        "--frequency-penalty",
        "--min-p",
        "--mirostat-ent",
        "--mirostat-lr",
        "--presence-penalty",
        "--repeat-penalty",
        "--rope-freq-base",
        "--rope-freq-scale",
        "--rope-scale",
        "--temp",
        "--temperature",
        "--top-n-sigma",
        "--top-nsigma",
        "--top-p",
        "--typical",
        "--typical-p",
        "--video-fps",
        "--xtc-probability",
        "--xtc-threshold",
        "--yarn-attn-factor",
        "--yarn-beta-fast",
        "--yarn-beta-slow",
        "--yarn-ext-factor",
    }
)
"""Numbers with a fraction, among the many whose placeholder is N."""

NUMBER_HINTS = frozenset({"N", "PORT", "SEED", "INDEX", "SECONDS", "MiB", "<0|1>", "<0...100>", "START"})
FLOAT_HINTS = frozenset({"P", "SIMILARITY", "L"})
PATH_HINTS = frozenset({"FNAME", "FILE", "PATH", "DIR", "JINJA_TEMPLATE_FILE", "FNAME:SCALE,..."})
LIST_HINTS = frozenset({"SERVERS", "ORIGINS", "METHODS", "HEADERS"})

SWITCH_WORDS = {
    # common/arg.cpp: is_truthy, is_falsey, is_autoy
    "[on|off|auto]": ("on", "off", "auto", "enabled", "disabled", "true", "false", "1", "0", "-1"),
    "[on|off]": ("on", "off", "enabled", "disabled", "true", "false", "1", "0"),
    # the handler of --flash-attn before them (b6332)
    "FA": ("on", "off", "auto", "enabled", "disabled"),
}
"""What else is taken where the help says on, off and auto; by placeholder."""

# common/arg.cpp: handlers that append to what is there, by push_back, emplace_back or insert
APPENDING = frozenset(
    {
        "--alias",
        "--api-key",
        "--api-key-file",
        "--control-vector",
        "--control-vector-scaled",
        "--dry-sequence-breaker",
        "--logit-bias",
        "--lora",
        "--lora-scaled",
        "--override-kv",
        "--override-tensor",
        "--override-tensor-draft",
        "--reverse-prompt",
        "--spec-replace",
        "--spec-type",
        "--tags",
    }
)
"""Flags of which a second one adds to the first, although newer builds warn of any flag that comes twice. By any
spelling."""

# common/arg.cpp: the handler does nothing but warn (first seen in b6332)
NO_EFFECT = frozenset({"--defrag-thold"})
"""Flags that are taken and ignored in the builds whose help calls them deprecated."""

REPLACEMENTS = {
    # common/arg.cpp, help of --load-mode: how a model is loaded became one setting (b10434)
    "--mlock": "--load-mode mlock",
    "--mmap": "--load-mode mmap",
    "--no-mmap": "--load-mode none",
    "--direct-io": "--load-mode dio",
    "--no-direct-io": "--load-mode mmap",
    "--tensor-read-lazy": "--lazy-mode on",
    # common/arg.cpp, arg_removed: the server's own hint has a wildcard
    "--spec-ngram-size-n": "--spec-ngram-simple-size-n",
    "--spec-ngram-size-m": "--spec-ngram-simple-size-m",
    "--spec-ngram-min-hits": "--spec-ngram-simple-min-hits",
    # common/arg.cpp: renamed between b8672 and b9563
    "--checkpoint-every-n-tokens": "--checkpoint-min-step",
    "--clear-idle": "--cache-idle-slots",
    "--no-clear-idle": "--no-cache-idle-slots",
}
"""What to use instead of a flag that is deprecated or gone, where the build does not say."""
