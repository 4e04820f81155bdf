"""Servers that speak OpenAI's chat dialect: where they are, in what they differ, and the base of others like them.

`type: groq` in `llm.yaml` is a row of `SERVERS`. A server that is not here is a `Server` of one's own:

    class Acme(OpenAICompatible):
        server = Server("https://api.acme.example/v1", Flavor(limit="max_completion_tokens"))

    register_provider("acme", Acme)

None of them says what it charges at admission, so prompt and most output are reserved together.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple
from weakref import WeakValueDictionary

from llm.core.exceptions import LLMConfigurationError
from llm.core.models import holds_to_schema

from .base import HTTPProvider
from .openai import OpenAIDialect
from .openai.body import Flavor
from .openai.embeddings import LIMITS, OpenAIEmbeddings
from .structured import RefusedWays, openai_ways

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.call import Charge
    from llm.core.protocols import ProviderFactory, ProviderSettings
    from llm.core.structured import Shape
    from llm.core.types import LLMRequest

    from .structured import Ways


class Server(NamedTuple):
    """A server that speaks OpenAI's chat dialect.

    Attributes:
        base_url: Where it is, with the version in its path; None: the section's `base_url` says it.
        flavor: In what its requests differ.
        needs_key: Whether it answers nobody without one.
        schema: Whether it holds answers to a JSON Schema; else a `response_model` is asked for by a forced tool. A
            server that has it for some models only refuses it for the others, and is asked the next way.
        embeddings: Whether it makes vectors.
        dimensions: Name of the field for the length of vectors.
        texts: Most texts that one request for vectors may hold; None for any number.
    """

    base_url: str | None = None
    flavor: Flavor = Flavor()
    needs_key: bool = True
    schema: bool = True
    embeddings: bool = True
    dimensions: str = "dimensions"
    texts: int | None = LIMITS.texts


SERVERS: Final[Mapping[str, Server]] = MappingProxyType(
    {
        # Source: https://api-docs.deepseek.com/api/create-chat-completion: the forms of an answer are text and
        # json_object. There is no address for embeddings. It thinks unless told otherwise, and refuses a turn with
        # calls that comes back without its thoughts: https://api-docs.deepseek.com/guides/thinking_mode
        "deepseek": Server(
            "https://api.deepseek.com/v1", Flavor(thoughts="reasoning_content"), schema=False, embeddings=False
        ),
        # Source: https://docs.fireworks.ai/tools-sdks/openai-compatibility
        "fireworks": Server("https://api.fireworks.ai/inference/v1"),
        # Source: https://ai.google.dev/gemini-api/docs/openai. "At most 100 requests can be in one batch", each a text:
        # https://github.com/geldata/gel/issues/9032
        # It refuses a call that comes back without its signature: https://ai.google.dev/gemini-api/docs/thought-signatures
        "gemini": Server("https://generativelanguage.googleapis.com/v1beta/openai", Flavor(signatures=True), texts=100),
        # Source: https://console.groq.com/docs/openai: a speaker's name is refused with 400. `max_tokens` is there for
        # older programs: https://console.groq.com/docs/api-reference#chat-create. There are no embeddings.
        "groq": Server(
            "https://api.groq.com/openai/v1", Flavor(limit="max_completion_tokens", names=False), embeddings=False
        ),
        # Source: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
        "llamacpp": Server("http://127.0.0.1:8080/v1", needs_key=False),
        # Source: https://lmstudio.ai/docs/developer/openai-compat
        "lmstudio": Server("http://127.0.0.1:1234/v1", needs_key=False),
        # Source: https://docs.mistral.ai/api/. It refuses fields that it does not know, a user's name among them. The
        # usage comes unasked, and asking for it is refused: https://github.com/dnakov/anon-kode/issues/53
        "mistral": Server(
            "https://api.mistral.ai/v1",
            Flavor(seed="random_seed", names=False, asks_usage=False),
            dimensions="output_dimension",
        ),
        # Source: https://docs.ollama.com/api/openai-compatibility
        "ollama": Server("http://127.0.0.1:11434/v1", needs_key=False),
        # Source: https://docs.together.ai/docs/inference/openai-compatibility
        "together": Server("https://api.together.ai/v1"),
        # Source: https://docs.vllm.ai/en/stable/serving/openai_compatible_server/
        "vllm": Server("http://127.0.0.1:8000/v1", needs_key=False),
        # Source: https://docs.x.ai/docs/api-reference#chat-completions: `max_tokens` is deprecated.
        "xai": Server("https://api.x.ai/v1", Flavor(limit="max_completion_tokens")),
    }
)
"""Compatible servers by the name that `type:` in `llm.yaml` gives them."""


class CompatibleDialect(OpenAIDialect):
    """Chat completions as one server takes them, at its own address or at `base_url`."""

    def __init__(self, server: Server, base_url: str | None = None) -> None:
        """Take the server, and where it is instead.

        Raises:
            LLMConfigurationError: Nobody says where it is, or it is no web address.
        """
        address = base_url or server.base_url
        if address is None:
            raise LLMConfigurationError("no base_url; say in the provider's section where its server is")
        super().__init__(address)
        self._server = server
        self._flavor = server.flavor
        root = self.health_url.removesuffix("/models")
        self.embeddings: OpenAIEmbeddings = OpenAIEmbeddings(root, dimensions=server.dimensions, texts=server.texts)

    def ways(self, request: LLMRequest, shape: Shape) -> Ways:
        """Return the ways to ask for an answer of this form."""
        return openai_ways(shape, native=self._server.schema and holds_to_schema(request.model or ""))

    def charge(self, request: LLMRequest, expected_output: int) -> Charge:
        """Charge the prompt's estimate and the most output, that of every choice."""
        stated = super().charge(request, expected_output)
        return stated._replace(total_tokens=stated.input_tokens + stated.output_tokens)


_known: Final[WeakValueDictionary[tuple[type, str], RefusedWays]] = WeakValueDictionary()


class OpenAICompatible(HTTPProvider):
    """One key at a server that speaks OpenAI's chat dialect; a subclass says which, and is a `ProviderFactory`.

    Without `server` it is any such server, at the section's `base_url`.

    Attributes:
        server: The server of a subclass.
    """

    server: ClassVar[Server] = Server(needs_key=False)

    def __init__(
        self, settings: ProviderSettings, server: Server | None = None, refused: RefusedWays | None = None
    ) -> None:
        """Take the settings; `server` goes before the class's.

        `refused` is what the keys of a section know together of the ways to ask for a `response_model`; without it
        the keys of one class at one address do.

        Raises:
            LLMConfigurationError: The key is missing or holds characters that no header may, or the address is none.
        """
        server = self.server if server is None else server
        if server.needs_key and settings.key is None and settings.base_url is None:
            raise LLMConfigurationError(
                f"provider {settings.name!r}: no key; add api_keys, or the base_url of a server without keys"
            )
        dialect = CompatibleDialect(server, settings.base_url)
        if refused is None:
            # A registered class is called for each key, and what one key was refused the next must not ask again.
            refused = _known.setdefault((type(self), dialect.url), RefusedWays())
        super().__init__(settings, dialect, refused)
        if not server.embeddings:
            self._embeddings = None

    @classmethod
    def factory_of(cls, server: Server) -> ProviderFactory:
        """Return a factory of providers at `server`, for the keys of one section."""
        refused = RefusedWays()
        return lambda settings: cls(settings, server, refused)
