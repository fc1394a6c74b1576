"""A result set in formats that other programs read. Pure.

Not here: what people read (kernel_matrix.report.html_page, markdown, terminal).
"""
