"""Hashes of what OpenCV's INTER_LINEAR makes of a picture of noise, for the unit test of crates/vision/src/resize.rs."""

import cv2
import numpy as np

SIZES = [(97, 61), (33, 20), (32, 61), (97, 30), (48, 30), (194, 122), (150, 95), (31, 200), (1, 1), (640, 402)]

state, noise = 1, []
for _ in range(97 * 61 * 3):
    state = (state * 1664525 + 1013904223) % 2**32
    noise.append(state >> 24)
picture = np.array(noise, np.uint8).reshape(61, 97, 3)

for size in SIZES:
    value = 0xCBF29CE484222325
    for byte in cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR).tobytes():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    print(f"        ({size}, 0x{value:016x}),")
