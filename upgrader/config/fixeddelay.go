package config

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/config/unitfile"
)

// applicationID keeps the machine id to the machine: what leaves it, if only as
// the hour of a request, follows from both and tells neither. See
// sd_id128_get_machine_app_specific(3). Changing it moves every host's delay.
const applicationID = "873c1da429f4451b80273b9dbf5df926"

func setFixedDelay(s scope, t *upgrader.Target, value string) error {
	fixed, err := unitfile.Bool(value)
	if err != nil {
		return err
	}
	t.Source.FixedDelay = 0
	if !fixed {
		return nil
	}
	machine, err := s.machineID()
	if err != nil {
		return refuse("set FixedRandomDelay=no, or see systemd-machine-id-setup(1)", "the delay follows from the machine id: %w", err)
	}
	id, err := appSpecific(machine, applicationID)
	if err != nil {
		return err
	}
	mac := hmac.New(sha256.New, id)
	mac.Write([]byte(s.name))
	// Zero would be no fixed delay.
	t.Source.FixedDelay = max(1, binary.BigEndian.Uint64(mac.Sum(nil)))
	return nil
}

// appSpecific is what sd_id128_get_machine_app_specific(3) gives: HMAC-SHA256 of
// the application's ID with the machine's as the key, cut to 128 bits and marked
// as a random UUID.
func appSpecific(machine, application string) ([]byte, error) {
	key, err := hex.DecodeString(machine)
	if err != nil {
		return nil, err
	}
	app, err := hex.DecodeString(application)
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(app)
	id := mac.Sum(nil)[:16]
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id, nil
}
