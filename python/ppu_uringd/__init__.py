"""Status, messages and events of ppu-uringd, the daemon that moves a detector's images to storage.

    import ppu_uringd

    for copies in ppu_uringd.status(1):
        print(copies.storage, copies.pending, copies.copied, copies.failed)

    with ppu_uringd.messages(since=0, reconnect=5) as messages:
        for message in messages:
            print(message)

    with ppu_uringd.visible(reconnect=5) as images:
        for image in images:
            process(image.path)

`DQueryStatusClient`, `DAbstractMessageClient` and `DClientSocket` are the interface of the predecessor, also found under
`dectris.grimsel`.
"""

from ._wire import MESSAGE_PORT, STATUS_PORT, Error, NoConnection, Refused
from .events import FileEvent, stored, visible
from .messages import Message, messages
from .status import Copies, status
from .subscription import Gap, Subscription

__all__ = [
    "Copies",
    "Error",
    "FileEvent",
    "Gap",
    "MESSAGE_PORT",
    "Message",
    "NoConnection",
    "Refused",
    "STATUS_PORT",
    "Subscription",
    "messages",
    "status",
    "stored",
    "visible",
]
__version__ = "0.1.0"
