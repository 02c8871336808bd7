"""Examples under the predecessor's names: `python -m dectris.grimsel.examples.GrimselStatus_0`, `python -m dectris.grimsel.examples.GrimselStatus`."""
