"""FaceScrub: faces of people, gathered from lists of addresses, boxes and checksums. The lists hold no pictures."""
