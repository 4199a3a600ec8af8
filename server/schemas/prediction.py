"""What a caller believes that the answer will be."""

from typing import Literal

from server.schemas.messages import Content, Strict


class Prediction(Strict):
    """Text that most of the answer is expected to be, like a file that is to be edited: it only comes faster then."""

    type: Literal["content"]
    content: Content

    def text(self) -> str:
        """The content as one string."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
