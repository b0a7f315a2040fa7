"""Opening a file: only what holds video, only this file, and the one stream that is the clip.

FFmpeg's demuxer, through PyAV, is the account of record. The reader, seeking, the timeline and `scan`
all open a clip here, so they see the same stream.
"""

from __future__ import annotations

import os
from typing import Any

import av
import av.error
from av.stream import Disposition

from pipeline.errors import UnreadableClip
from pipeline.features.files import read_start

FORMATS = (
    # the containers of today
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,live_flv,mpegts,mpegtsraw,mpeg,asf,asf_o,ogg,"
    # of broadcast, cameras and disks
    "mxf,gxf,dv,dhav,wtv,ty,pva,xmv,nut,rm,ivr,swf,nsv,nuv,lmlm4,lxf,mxg,bethsoftvid,film_cpk,cine,"
    # streams without a container
    "h264,hevc,vvc,evc,av1,obu,ivf,m4v,mpegvideo,mjpeg,mpjpeg,jpeg_pipe,h261,h263,vc1,vc1test,dirac,dnxhd,"
    "cavsvideo,avs2,avs3,yuv4mpegpipe,"
    # animations and what is left of the nineties
    "gif,apng,amv,cdxl,flic,bink,smk,roq,4xm,ea,idcin,ipmovie,wc3movie,wsvqa,vivo,thp,mv,mtv"
)
"""Names of demuxers that hold video in the file itself. Not among them are those that read other
files (playlists, ffconcat, image sequences, SDP), run scripts, or take a single picture for a clip."""

_NO_CLIP = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
# Tags that are no UTF-8 must not end the reading; from PyAV 19 they never do, and the word is gone.
_READING: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)
DAMAGED = (av.error.FFmpegError, IndexError)
"""What reading on raises in a damaged file. PyAV's demuxer knows no stream that begins in mid-file
(IndexError): flipped bits of an MPEG-TS look like one."""
_OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}


def open_video(path: str) -> tuple[Any, Any]:
    """An open container and the stream that is the clip, decoding on one thread.

    Raises `UnreadableClip`: `unreadable`, `no_video` or `codec_unsupported`.
    """
    try:
        # Absolute: FFmpeg takes what stands before a colon for a protocol.
        container = av.open(os.path.abspath(path), options=_OPTIONS, **_READING)
    except MemoryError:
        raise
    except av.error.ArgumentError:
        head = read_start(path, 21)
        if head[:4] + head[8:16] == b"RIFFWEBPVP8X" and head[20] & 2:  # animated
            detail = "FFmpeg has no decoder for animated WebP: convert it to MP4 or GIF"
            raise UnreadableClip("codec_unsupported", detail) from None
        detail = "its format is none that holds video, or its header makes no sense"
        raise UnreadableClip("unreadable", detail) from None
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise UnreadableClip("unreadable", f"FFmpeg: {_plain(error)}") from None
    try:
        stream = the_clip(container)
        if stream.codec_context is None:
            raise UnreadableClip("codec_unsupported", "FFmpeg has no decoder for its codec")
    except UnreadableClip:
        container.close()
        raise
    stream.codec_context.thread_count = 1
    return container, stream


def the_clip(container: Any) -> Any:
    """The video stream that is the clip: no cover or thumbnail; decodable, default, then largest.

    Raises `UnreadableClip` with `no_video`.
    """
    streams = container.streams.video
    clips = [stream for stream in streams if not stream.disposition & _NO_CLIP]
    if not clips:
        detail = "only a cover picture" if streams else "no video stream"
        raise UnreadableClip("no_video", f"the file has {detail}")

    def rank(stream: Any) -> tuple[bool, bool, int]:
        context = stream.codec_context
        area = context.width * context.height if context is not None else 0
        return context is not None, bool(stream.disposition & Disposition.default), area

    return max(clips, key=rank)


def left_by_edits(container: Any, stream: Any, declared: int, frame_s: float) -> int:
    """The declared frames of the clip, less those that an edit list cuts away.

    FFmpeg applies the list to the index: it leaves out what lies beyond the nearest keyframes,
    and marks as discarded what is decoded and not shown. An index that ends early for want of
    data is no edit: it is shorter than the stated duration.
    """
    entries = list(stream.index_entries) if "mov" in container.format.name else []
    shown = sum(not entry.is_discard for entry in entries)
    if shown < len(entries):
        return shown
    if 0 < shown < declared and stream.duration:
        ticks = entries[-1].timestamp - entries[0].timestamp
        if float((stream.duration - ticks) * stream.time_base) < 1.5 * frame_s:
            return shown
    return declared


def _plain(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
