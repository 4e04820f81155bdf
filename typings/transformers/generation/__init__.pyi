from . import streamers as streamers
