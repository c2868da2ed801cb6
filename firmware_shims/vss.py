"""Signal names: COVESA Vehicle Signal Specification paths with their units, and a small overlay.

Source: COVESA VSS 4 to 6. The overlay holds what VSS has no name for; VSS calls such additions overlays.
"""

from typing import Final

LOW_VOLTAGE_STATE: Final = "Vehicle.LowVoltageSystemState"  # UNDEFINED LOCK OFF ACC ON START
SPEED: Final = "Vehicle.Speed"  # km/h
GEAR: Final = "Vehicle.Powertrain.Transmission.SelectedGear"
GEAR_PARK: Final = 126  # VSS: 0 neutral, 1.. forward, -1.. reverse, 126 park, 127 drive
GEAR_DRIVE: Final = 127
DOORS: Final = tuple(
    f"Vehicle.Cabin.Door.{row}.{side}.IsOpen"
    for row in ("Row1", "Row2")
    for side in ("DriverSide", "PassengerSide")
)
DRIVER_DOOR: Final = DOORS[0]
DRIVER_LOCK: Final = "Vehicle.Cabin.Door.Row1.DriverSide.IsLocked"
DRIVER_SEAT: Final = "Vehicle.Cabin.Seat.Row1.DriverSide.IsOccupied"
BRAKE: Final = "Vehicle.Chassis.Brake.PedalPosition"  # %

SOC: Final = "Vehicle.Powertrain.TractionBattery.StateOfCharge.Current"  # %
PACK_CURRENT: Final = "Vehicle.Powertrain.TractionBattery.CurrentCurrent"  # A, + into the battery
PACK_VOLTAGE: Final = "Vehicle.Powertrain.TractionBattery.CurrentVoltage"  # V
PACK_TEMPERATURE_MIN: Final = "Vehicle.Powertrain.TractionBattery.Temperature.Min"  # Celsius
PACK_TEMPERATURE_MAX: Final = "Vehicle.Powertrain.TractionBattery.Temperature.Max"  # Celsius
IS_CHARGING: Final = "Vehicle.Powertrain.TractionBattery.Charging.IsCharging"
CABLE_CONNECTED: Final = (
    "Vehicle.Powertrain.TractionBattery.Charging.ChargingPort.AnyPosition.IsChargingCableConnected"
)
TIME_TO_COMPLETE: Final = (
    "Vehicle.Powertrain.TractionBattery.Charging.TimeToComplete"  # s until the charge target
)
LOW_VOLTAGE_BATTERY: Final = "Vehicle.LowVoltageBattery.CurrentVoltage"  # V
AMBIENT_TEMPERATURE: Final = "Vehicle.Exterior.AirTemperature"  # Celsius
LATITUDE: Final = "Vehicle.CurrentLocation.Latitude"  # degrees, WGS 84
LONGITUDE: Final = "Vehicle.CurrentLocation.Longitude"  # degrees, WGS 84

CHARGE_LINE_POWER: Final = "Vehicle.Powertrain.TractionBattery.Charging.LinePower"  # W, AC side; overlay
CHIP_TEMPERATURE: Final = "Vehicle.Compute.Chip.Temperature"  # Celsius; overlay
COMPUTE_RAIL: Final = (
    "Vehicle.Compute.PowerRail"  # ON, GOING_DOWN, FAULT, OFF: this computer's supply; overlay
)
GRID_LIMIT: Final = "Vehicle.Compute.GridLimit"  # W that the grid leaves for this computer; overlay

OVERLAY: Final = frozenset({CHARGE_LINE_POWER, CHIP_TEMPERATURE, COMPUTE_RAIL, GRID_LIMIT})
