"""Photos of common formats: finds them in folders, reads them, decodes them to uint8 sRGB."""

from shards.format.photos.decoding import DecodedPhoto as DecodedPhoto
from shards.format.photos.decoding import decode_photo as decode_photo
from shards.format.photos.decoding import read_photo as read_photo
from shards.format.photos.errors import DecodeError as DecodeError
from shards.format.photos.files import Listing as Listing
from shards.format.photos.files import describe_passed_over as describe_passed_over
from shards.format.photos.files import list_photos as list_photos
from shards.format.photos.files import read_file as read_file
from shards.format.photos.formats import photo_suffixes as photo_suffixes
from shards.format.photos.pictures import Picture as Picture
from shards.format.photos.pictures import read_picture as read_picture
