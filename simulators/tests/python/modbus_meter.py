"""A meter on pymodbus (SDM630 register map: floats in input registers), over TCP or RTU.

Tells {"event": "listening", "port": N} on standard output. A line on standard input is a command: `current L1 L2 L3` in A sets what
flows; the end of the input ends the program.
"""

import argparse
import asyncio
import json
import random
import struct
import sys

from pymodbus import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice


def floats(values):
    return [word for value in values for word in struct.unpack(">HH", struct.pack(">f", value))]


def tell(event, **facts):
    print(json.dumps({"event": event, **facts}), flush=True)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--serial", help="a serial line instead of TCP")
    parser.add_argument("--unit", type=int, default=1)
    options = parser.parse_args()

    image = {}

    flows = [0.0, 0.0, 0.0]
    wobble = 0.0

    def show():
        currents = [current + wobble for current in flows]
        image[0] = floats([230.0, 230.0, 230.0])
        image[6] = floats(currents)
        image[12] = floats([current * 230.0 for current in currents])
        image[52] = floats([sum(currents) * 230.0])

    async def refresh(_function, start, _address, _count, registers, _values):
        # No meter shows exactly the same twice; one that does is taken for slow.
        nonlocal wobble
        wobble = random.uniform(0.0, 0.02)
        show()
        for address, words in image.items():
            registers[address - start : address - start + len(words)] = words

    show()
    unused = [SimData(0, count=1, values=0, datatype=DataType.REGISTERS)]
    bits = [SimData(0, count=1, values=False, datatype=DataType.BITS)]
    registers = [SimData(0, count=400, values=0, datatype=DataType.REGISTERS)]
    device = SimDevice(options.unit, simdata=(bits, bits, unused, registers), action=refresh)
    if options.serial:
        server = ModbusSerialServer(device, framer=FramerType.RTU, port=options.serial, baudrate=19200)
    else:
        server = ModbusTcpServer(device, address=("127.0.0.1", 0))
    await server.serve_forever(background=True)
    port = None if options.serial else server.transport.sockets[0].getsockname()[1]
    tell("listening", port=port)

    reader = asyncio.StreamReader(limit=1024)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode().split():
        if line[0] == "current":
            flows[:] = [float(value) for value in line[1:4]]
            tell("current", current=line[1:4])
    await server.shutdown()


asyncio.run(main())
