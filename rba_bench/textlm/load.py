"""From what the user writes for a text LLM to the model: a folder, a Hub id, or `openai:<base_url>#<model>`."""

from rba_bench.textlm.asking import JudgeModel
from rba_bench.textlm.base import TextLM
from rba_bench.textlm.endpoint_address import parse_endpoint
from rba_bench.textlm.endpoint_options import EndpointOptions
from rba_bench.textlm.template import Variables

__all__ = ["load_asker", "load_textlm", "parse_endpoint"]


def load_textlm(
    spec: str,
    device: str = "cpu",
    batch_size: int = 32,
    *,
    trust_remote_code: bool = False,
    endpoint: EndpointOptions | None = None,
    template: Variables | None = None,
) -> TextLM:
    """The text LLM behind a spec.

    Args:
        spec: a folder, a Hub id, or `openai:<base_url>#<model>` whose key `endpoint_keys` finds.
        device: a torch device or `auto`; local models only.
        batch_size: rows per batch; local models only.
        trust_remote_code: run Python code that ships with a local model.
        endpoint: timeouts, retries, concurrency; by default from the environment.
        template: variables of the chat template, such as `{"enable_thinking": False}`; servers get them as
            `chat_template_kwargs`, which vLLM, SGLang and llama.cpp know.

    Raises:
        UserError: the spec is malformed, or the model is none that can be used.
        MissingPrerequisite: the model is not there.
    """
    if parse_endpoint(spec) is not None:
        from rba_bench.textlm.endpoint import EndpointLM

        return EndpointLM.from_spec(spec, endpoint, template)
    from rba_bench.textlm.local import LocalTextLM

    return LocalTextLM.from_pretrained(spec, device, batch_size, trust_remote_code, dict(template or {}))


def load_asker(
    spec: str,
    device: str = "cpu",
    batch_size: int = 32,
    *,
    trust_remote_code: bool = False,
    endpoint: EndpointOptions | None = None,
    template: Variables | None = None,
) -> JudgeModel:
    """What answers questions about answers (a judge): as `load_textlm`, with messages and log-probabilities.

    A local judge whose template knows `enable_thinking` does not think unless `template` says so: it is asked for a
    word or a digit.
    """
    if parse_endpoint(spec) is not None:
        from rba_bench.textlm.endpoint import EndpointLM

        return EndpointLM.from_spec(spec, endpoint, template)
    from rba_bench.textlm.local_asking import LocalAsker

    return LocalAsker(spec, device, batch_size, trust_remote_code, dict(template or {}))
