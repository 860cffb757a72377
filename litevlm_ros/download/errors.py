"""What a person sees when a model could not be fetched."""

from litevlm_ros.errors import LiteVLMError


class DownloadError(LiteVLMError):
    """A model or an archive of engines could not be fetched, does not fit, or would overwrite something."""
