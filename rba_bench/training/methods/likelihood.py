"""Cross entropy on given answers: TTS-SFT, and BLSP and AudioChatLlama, whose answers the own LLM has written."""

from rba_bench.training.methods.base import Method, Step, Terms


class Likelihood(Method):
    """L = -log pi(y|x), mean over tokens or (RBA Eq. (1)) over answers; the data decide whose answers y are."""

    @property
    def supervised(self) -> bool:
        """Always."""
        return True

    def loss(self, step: Step) -> Terms:
        """See the class."""
        loss = self.supervision(step)
        return Terms(loss, {"sft": float(loss.detach())})
