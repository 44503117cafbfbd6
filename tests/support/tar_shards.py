"""Images in tar shards, as WebDataset writes them."""

import io
import json
import tarfile

from support.images import encoded, pil_image, stripes

KINDS = ("across", "down")


def add(tar, name, payload):
    info = tarfile.TarInfo(name)
    info.size = len(payload)
    tar.addfile(info, io.BytesIO(payload))


def write_shards(folder, count=4, each=30, layout="cls", name="p-{:03d}.tar", first=0):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        with tarfile.open(folder / name.format(number), "w") as tar:
            for i in range(number * each, (number + 1) * each):
                kind = i % 2
                payload = encoded(pil_image(stripes(kind, first + i)))
                if layout == "folder":
                    add(tar, f"{KINDS[kind]}/{i:06d}.png", payload)
                    continue
                label = KINDS[kind].encode()
                told = json.dumps({"label": KINDS[kind]}).encode()
                if layout == "cls":
                    add(tar, f"{i:06d}.png", payload)
                    add(tar, f"{i:06d}.cls", label)
                else:
                    add(tar, f"x/{i:06d}.json", told)
                    add(tar, f"x/{i:06d}.png", payload)
    return folder
