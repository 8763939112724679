"""Self-contained HTML pages: text, tables, charts and small images in one file.

No script, no network, no fonts from elsewhere: a page opens from a memory stick and prints. All
text is escaped, so that names of files and categories may hold anything. In short:

    page = Page("Balloons", subtitle="61 photos, one class")
    section = page.section("Sizes", "How large the objects are.")
    section.key_numbers([("images", 61), ("objects", 225)])
    section.table(("image", "objects"), [("a.jpg", 3), ("b.jpg", 1)])
    section.charts([
        histogram([12.0, 40.5], "Object sizes", "pixels"),
        lines({"train": ([0, 1], [2.0, 1.5])}, "Loss", "step", "loss"),
    ])
    uri = data_uri(small_drawing(image, boxes, masks, color_ids=category_ids))
    section.pictures([Picture(uri, "a.jpg", "three balloons")])
    page.save("page.html")

`page.py` has pages, `charts.py` charts as inline SVG, `thumbnails.py` small images with outlines,
`markup.py` what they share.
"""
